//! Objects held against the rules of their schema (`cel.Validator.Validate`).

use std::collections::HashMap;
use std::time::Instant;

use cel::common::types::{CelBool, CelList, CelMap, CelMapKey, CelOptional, CelString};
use cel::common::value::Val;
use serde_json::{Map, Value};

use super::super::super::status::FieldError;
use super::budget::{Budget, LONGEST, PER_OBJECT, PER_RULE};
use super::expression::{Expression, Failure, Scope};
use super::rules::{Node, Rule};
use super::shape::escape;
use super::values::to_cel;
use super::{Rules, shape};

#[derive(Debug, Default)]
pub(in super::super) struct Findings {
    pub errors: Vec<FieldError>,
    /// Broken rules on what was stored so before and did not change (`CRDValidationRatcheting`).
    pub warnings: Vec<String>,
}

/// `old` is what an update replaces.
pub(in super::super) fn evaluate(rules: &Rules, schema: &Value, object: &Value, old: Option<&Value>) -> Findings {
    let mut walk = Walk { found: Findings::default(), left: PER_OBJECT, ends: Instant::now() + LONGEST };
    if let Some(node) = rules.of(schema) {
        let at = At { schema, value: object, old, kept: old.map(|old| (object, old)), is_correlated: old.is_some(), cel: None };
        // Out of budget: what there is to say has been said.
        let _ = walk.node(node, &at, "");
    }
    walk.found
}

struct Walk {
    found: Findings,
    left: i64,
    ends: Instant,
}

/// No further rule is evaluated.
struct Stop;

/// One value on the way through an object.
#[derive(Clone, Copy)]
struct At<'v, 'w> {
    schema: &'v Value,
    value: &'v Value,
    /// What rules call `oldSelf`.
    old: Option<&'v Value>,
    /// The value, or the nearest above it that can be found again in the old object, and what it was there.
    kept: Option<(&'v Value, &'v Value)>,
    /// Whether `kept` is of the value itself: below what cannot be found again nothing can.
    is_correlated: bool,
    /// The value, if something above it has been made a value of CEL.
    cel: Option<&'w (dyn Val + 'v)>,
}

impl<'v> At<'v, '_> {
    fn is_unchanged(&self) -> bool {
        self.kept.is_some_and(|(now, before)| now == before)
    }
}

/// `Invalid value: "object": …`: kube-apiserver shows the type, the value may be large.
fn invalid(path: &str, node: &Node, detail: &str) -> FieldError {
    FieldError::invalid(shown(path), &node.type_name.as_str().into(), detail)
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() || name.starts_with('[') { format!("{path}{name}") } else { format!("{path}.{name}") }
}

impl Walk {
    fn node<'v>(&mut self, node: &Node, at: &At<'v, '_>, path: &str) -> Result<(), Stop> {
        if at.value.is_null() {
            return Ok(());
        }
        let made = (at.cel.is_none() && !node.rules.is_empty()).then(|| to_cel(at.schema, at.value, node.is_resource));
        let at = At { cel: at.cel.or(made.as_deref()), ..*at };
        if let Some(cel) = at.cel {
            for rule in &node.rules {
                self.rule(rule, node, &at, cel, path)?;
            }
        }
        for below in &node.all_of {
            // What is below `allOf` is not found again, as with the schema's other validations.
            self.node(below, &At { is_correlated: false, ..at }, path)?;
        }
        match at.value {
            Value::Object(map) => self.fields(node, &at, map, path),
            Value::Array(items) => self.items(node, &at, items, path),
            _ => Ok(()),
        }
    }

    fn fields<'v>(&mut self, node: &Node, at: &At<'v, '_>, map: &'v Map<String, Value>, path: &str) -> Result<(), Stop> {
        for (name, value) in map {
            let (below, schema, path, key) = if let Some(below) = node.properties.get(name) {
                (below, &at.schema["properties"][name], child(path, name), escape(name))
            } else if let Some(below) = &node.additional {
                (&**below, &at.schema["additionalProperties"], format!("{path}[{name}]"), Some(name.into()))
            } else {
                continue;
            };
            let old = at.old.and_then(|old| old.get(name));
            let cel = at.cel.and_then(|map| map.downcast_ref::<CelMap>());
            let cel = cel.zip(key).and_then(|(map, key)| map.inner().get(&CelMapKey::from(key.into_owned()))).map(|value| value.as_ref());
            self.node(below, &below_of(at, schema, value, old, cel), &path)?;
        }
        Ok(())
    }

    fn items<'v>(&mut self, node: &Node, at: &At<'v, '_>, items: &'v [Value], path: &str) -> Result<(), Stop> {
        let Some(below) = &node.items else { return Ok(()) };
        let list = at.cel.and_then(|list| list.downcast_ref::<CelList>());
        let old_item = old_items(at);
        for (index, value) in items.iter().enumerate() {
            let old = old_item(value);
            let cel = list.and_then(|list| list.inner().get(index)).map(|value| value.as_ref());
            self.node(below, &below_of(at, &at.schema["items"], value, old, cel), &format!("{path}[{index}]"))?;
        }
        Ok(())
    }

    fn rule<'v>(&mut self, rule: &Rule, node: &Node, at: &At<'v, '_>, cel: &(dyn Val + 'v), path: &str) -> Result<(), Stop> {
        if rule.expression.uses_old_self && at.old.is_none() && !rule.old_self_is_optional {
            return Ok(());
        }
        let out_of_budget = |walk: &mut Self, detail: &str| {
            walk.found.errors.push(invalid(path, node, detail));
            Err(Stop)
        };
        const SPENT: &str = "validation failed due to running out of cost budget, no further validation rules will be run";
        if self.left <= 0 {
            return out_of_budget(self, SPENT);
        }
        let old = at.old.map(|old| to_cel(at.schema, old, node.is_resource));
        let old = if rule.old_self_is_optional { Some(Box::new(old.map_or_else(CelOptional::none, CelOptional::of)) as _) } else { old };
        let scope = Scope { self_value: cel.clone_as_boxed(), old_self: old, budget: Budget::new(self.left.min(PER_RULE), self.ends) };
        let mut evaluate = |expression: &Expression, scope: &Scope<'v>| {
            let before = scope.budget.left();
            let holds = expression.evaluate(scope, |value| value.downcast_ref::<CelBool>().is_some_and(|bool| *bool.inner()));
            self.left -= before - scope.budget.left().max(0);
            holds
        };
        match evaluate(&rule.expression, &scope) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(Failure::TooCostly) if self.left <= 0 => return out_of_budget(self, SPENT),
            Err(Failure::TooCostly) => {
                let detail = format!(
                    "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    rule.name
                );
                return out_of_budget(self, &detail);
            }
            Err(Failure::Error(error)) => {
                let detail = if error.starts_with("no such overload") {
                    format!(
                        "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                        rule.name
                    )
                } else {
                    format!("{error} evaluating rule: {}", rule.name)
                };
                self.found.errors.push(invalid(path, node, &detail));
                return Ok(());
            }
        }
        let detail = match rule.message_expression.as_ref().and_then(|expression| message(expression, &scope)) {
            Some(message) => message,
            None if rule.message.is_empty() => format!("failed rule: {}", rule.name),
            None => rule.message.clone(),
        };
        let path = if rule.field_path.is_empty() { path.to_owned() } else { child(path, &rule.field_path) };
        let error = match rule.reason.as_str() {
            "FieldValueForbidden" => FieldError::forbidden(shown(&path), &detail),
            "FieldValueRequired" => FieldError::required(shown(&path), &detail),
            "FieldValueDuplicate" => FieldError::duplicate(shown(&path), &node.type_name.as_str().into()),
            _ => invalid(&path, node, &detail),
        };
        if !rule.expression.uses_old_self && at.is_unchanged() {
            self.found.warnings.push(format!("{}: {}", error.field, error.message));
        } else {
            self.found.errors.push(error);
        }
        Ok(())
    }
}

/// What a rule's `messageExpression` says, if that is a message (`evalMessageExpression`).
fn message(expression: &Expression, scope: &Scope<'_>) -> Option<String> {
    const LONGEST: usize = 5 << 10;
    let text = expression.evaluate(scope, |value| value.downcast_ref::<CelString>().map(|text| text.inner().trim().to_owned()));
    text.ok().flatten().filter(|text| !text.is_empty() && text.len() <= LONGEST && !text.contains('\n'))
}

fn below_of<'v, 'w>(
    at: &At<'v, '_>,
    schema: &'v Value,
    value: &'v Value,
    old: Option<&'v Value>,
    cel: Option<&'w (dyn Val + 'v)>,
) -> At<'v, 'w> {
    let is_correlated = at.is_correlated && old.is_some();
    let kept = if is_correlated { old.map(|old| (value, old)) } else { at.kept };
    // A field without a type is no value in CEL; a rule on it makes its own.
    let cel = cel.filter(|_| shape::is_typed(schema));
    At { schema, value, old, kept, is_correlated, cel }
}

/// Finds the item of the old list that is the same one: only lists that are maps know (`makeMapList`).
fn old_items<'v>(at: &At<'v, '_>) -> impl Fn(&Value) -> Option<&'v Value> {
    let schema = at.schema;
    let key = move |item: &Value| -> String {
        let names = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(|name| format!("{}\n", item[name])).collect()
    };
    let old = at.old.filter(|_| schema["x-kubernetes-list-type"] == "map").and_then(Value::as_array);
    let known: HashMap<String, &'v Value> = old.into_iter().flatten().map(|item| (key(item), item)).collect();
    move |item| if known.is_empty() { None } else { known.get(&key(item)).copied() }
}
