//! What is wrong with rules before there is an object: names that nobody declared, fields that the schema has not, and the
//! rules on rules themselves (`ValidateCustomResourceDefinitionOpenAPISchema`).

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;

use super::super::super::status::FieldError;
use super::expression::{self, Read};
use super::library;
use super::rules::{self, Place};
use super::shape::{Field, Shape};

/// Findings in one expression.
#[derive(Default)]
pub(super) struct Findings {
    /// The node, and what is wrong with it.
    pub errors: Vec<(u64, String)>,
    /// Functions of Kubernetes that this server has not.
    pub not_evaluated: Vec<String>,
    pub uses_old_self: bool,
}

/// What is known of an expression's value.
type Known<'s> = Option<Shape<'s>>;

struct Names<'s> {
    found: Findings,
    /// Variables of the comprehensions around.
    variables: Vec<(String, Known<'s>)>,
    self_shape: Shape<'s>,
    old_self_is_optional: bool,
}

pub(super) fn names(root: &IdedExpr, self_shape: Shape<'_>, old_self_is_optional: bool) -> Findings {
    let mut names = Names { found: Findings::default(), variables: Vec::new(), self_shape, old_self_is_optional };
    names.expression(root);
    names.found
}

impl<'s> Names<'s> {
    fn expression(&mut self, expr: &IdedExpr) -> Known<'s> {
        match &expr.expr {
            Expr::Ident(name) => self.variable(expr.id, name),
            Expr::Select(select) => {
                let of = self.expression(&select.operand)?;
                self.field(expr.id, of, &select.field)
            }
            Expr::Call(call) => self.call(expr.id, call),
            Expr::Comprehension(loops) => {
                let range = self.expression(&loops.iter_range);
                self.expression(&loops.accu_init);
                let before = self.variables.len();
                let names = [(&loops.accu_var, None), (&loops.iter_var, range.and_then(Shape::item))];
                self.variables.extend(names.map(|(name, shape)| (name.clone(), shape)));
                self.variables.extend(loops.iter_var2.clone().map(|name| (name, None)));
                for part in [&loops.loop_cond, &loops.loop_step, &loops.result] {
                    self.expression(part);
                }
                self.variables.truncate(before);
                None
            }
            Expr::Struct(made) => {
                self.found.errors.push((expr.id, format!("undeclared reference to '{}' (in container '')", made.type_name)));
                None
            }
            Expr::List(_) | Expr::Map(_) | Expr::Literal(_) | Expr::Unspecified => {
                for part in expression::below(expr) {
                    self.expression(part);
                }
                None
            }
        }
    }

    fn variable(&mut self, at: u64, name: &str) -> Known<'s> {
        if let Some((_, shape)) = self.variables.iter().rev().find(|(variable, _)| variable == name) {
            return *shape;
        }
        match name {
            "self" => Some(self.self_shape),
            "oldSelf" => {
                self.found.uses_old_self = true;
                (!self.old_self_is_optional).then_some(self.self_shape)
            }
            _ => {
                if !library::TYPES.contains(&name) {
                    self.found.errors.push((at, format!("undeclared reference to '{name}' (in container '')")));
                }
                None
            }
        }
    }

    fn field(&mut self, at: u64, of: Shape<'s>, name: &str) -> Known<'s> {
        match of.field(name) {
            Field::Known(shape) => Some(shape),
            Field::Dynamic => None,
            Field::Undefined => {
                self.found.errors.push((at, format!("undefined field '{name}'")));
                None
            }
        }
    }

    fn call(&mut self, at: u64, call: &CallExpr) -> Known<'s> {
        let mut name = call.func_name.clone();
        match call.target.as_deref() {
            // `sets.contains(…)` is a function's name and not a field of a variable.
            Some(IdedExpr { expr: Expr::Ident(space), .. })
                if library::SPACES.contains(&space.as_str()) && !self.variables.iter().any(|(variable, _)| variable == space) =>
            {
                name = format!("{space}.{name}");
            }
            Some(expr) => drop(self.expression(expr)),
            None => {}
        }
        let two_variables = matches!(name.as_str(), "all" | "exists" | "exists_one" | "existsOne") && call.args.len() > 2;
        if library::is_missing(&name) || two_variables {
            // What is inside may name variables that only this function declares.
            self.found.not_evaluated.push(name);
            return None;
        }
        if !library::is_known(&name) {
            self.found.errors.push((at, format!("undeclared reference to '{name}' (in container '')")));
        }
        let args: Vec<Known<'s>> = call.args.iter().map(|arg| self.expression(arg)).collect();
        if name == "matches"
            && let Some(IdedExpr { id, expr: Expr::Literal(LiteralValue::String(pattern)) }) = call.args.last()
            && super::super::formats::compiled(pattern.inner()).is_none()
        {
            self.found.errors.push((*id, format!("invalid matches argument: error parsing regexp: `{}`", pattern.inner())));
        }
        match (name.as_str(), args.first()) {
            (operators::INDEX, Some(Some(of))) if of.is_map() => match of.field("") {
                Field::Known(shape) => Some(shape),
                _ => None,
            },
            (operators::INDEX, Some(Some(of))) => of.item(),
            _ => None,
        }
    }
}

/// Whether an expression is plainly no bool.
fn is_no_bool(root: &IdedExpr, shape: Shape<'_>) -> bool {
    match &root.expr {
        Expr::Literal(literal) => !matches!(literal, LiteralValue::Boolean(_)),
        Expr::List(_) | Expr::Map(_) => true,
        Expr::Call(call) => {
            matches!(call.func_name.as_str(), operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | "size")
        }
        Expr::Ident(name) => name == "self" && shape.type_name().is_some_and(|kind| kind != "boolean"),
        Expr::Select(select) if !select.test => {
            let mut names = Names { found: Findings::default(), variables: Vec::new(), self_shape: shape, old_self_is_optional: true };
            names.expression(root).and_then(Shape::type_name).is_some_and(|kind| kind != "boolean")
        }
        _ => false,
    }
}

pub(super) fn no_bool(root: &IdedExpr, shape: Shape<'_>) -> Option<String> {
    is_no_bool(root, shape).then(|| "cel expression must evaluate to a bool".to_owned())
}

/// Mistakes in a definition's rules, and warnings of rules that are not going to be evaluated.
pub(in crate::api) fn definition_mistakes(definition: &Value) -> (Vec<FieldError>, Vec<String>) {
    let versions: Vec<&Value> = definition["spec"]["versions"].as_array().into_iter().flatten().collect();
    let schemas: Vec<&Value> = versions.iter().map(|version| &version["schema"]["openAPIV3Schema"]).collect();
    // Schemas that are all the same are one to kube-apiserver, which names it so.
    let are_same = schemas.windows(2).all(|pair| pair[0] == pair[1]);
    let mut places = Vec::new();
    for (index, schema) in schemas.iter().enumerate().take(if are_same { 1 } else { usize::MAX }) {
        let path =
            if are_same { "spec.validation.openAPIV3Schema".to_owned() } else { format!("spec.versions[{index}].schema.openAPIV3Schema") };
        rules::places(schema, &path, &mut places);
    }
    if places.is_empty() {
        return Default::default();
    }
    let checked = expression::on_reading_stack(|| {
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        for place in &places {
            rule_mistakes(place, &mut errors, &mut warnings);
        }
        (errors, warnings)
    });
    checked.unwrap_or_else(|| (vec![FieldError::invalid("spec.versions", &Value::Null, "rules cannot be read")], Vec::new()))
}

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

fn rule_mistakes(place: &Place<'_>, errors: &mut Vec<FieldError>, warnings: &mut Vec<String>) {
    let Place { path, rule, shape } = place;
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    let at = |field: &str| format!("{path}.{field}");
    let (source, message) = (text("rule").trim(), text("message").trim());
    if source.is_empty() {
        errors.push(FieldError::required(at("rule"), "rule is not specified"));
        return;
    }
    let mut blank = |field: &str| {
        if !text(field).is_empty() && text(field).trim().is_empty() {
            errors.push(FieldError::invalid(at(field), &rule[field], &format!("{field} must be non-empty if specified")));
        } else if text(field).trim().contains('\n') {
            errors.push(FieldError::invalid(at(field), &rule[field], &format!("{field} must not contain line breaks")));
        }
    };
    blank("message");
    blank("fieldPath");
    if source.contains('\n') && message.is_empty() {
        errors.push(FieldError::required(at("message"), "message must be specified if rule contains line breaks"));
    }
    if !text("reason").is_empty() && !REASONS.contains(&text("reason")) {
        errors.push(FieldError::unsupported(at("reason"), &rule["reason"], &REASONS));
    }
    if !text("fieldPath").is_empty() && rules::field_path(text("fieldPath"), *shape).is_none() {
        errors.push(FieldError::invalid(at("fieldPath"), &rule["fieldPath"], "fieldPath must be a valid path"));
    }
    let optional = rule["optionalOldSelf"] == true;
    for (field, source) in [("rule", source), ("messageExpression", text("messageExpression").trim())] {
        if source.is_empty() {
            continue;
        }
        let refused = match expression::read(source, *shape, optional) {
            Read::Ready(expression) if field == "rule" => {
                if optional && !expression.uses_old_self {
                    let detail = "may not be set if oldSelf is not used in rule";
                    errors.push(FieldError::invalid(at("optionalOldSelf"), &rule["optionalOldSelf"], detail));
                }
                no_bool(expression.root(), *shape)
            }
            Read::Ready(_) => None,
            Read::NotEvaluated(functions) => {
                let functions: Vec<String> = functions.iter().map(|name| format!("{name}()")).collect();
                warnings.push(format!(
                    "{}: uses {}, which this API server does not evaluate: {}",
                    at(field),
                    functions.join(", "),
                    if field == "rule" { "what only this rule forbids is accepted" } else { "the rule's message is used instead" }
                ));
                None
            }
            Read::Refused(why) if field == "rule" => Some(format!("compilation failed: {why}")),
            Read::Refused(why) => Some(format!("messageExpression compilation failed: {why}")),
        };
        if let Some(refused) = refused {
            errors.push(FieldError::invalid(at(field), rule, &refused));
        }
    }
}
