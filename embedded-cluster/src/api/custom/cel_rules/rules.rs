//! The rules of a schema as a tree that follows it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::expression::{self, Expression, Read};
use super::shape::{Shape, is_embedded};

/// A rule where it stands in a schema.
pub(super) struct Place<'s> {
    /// `spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]`
    pub path: String,
    pub rule: &'s Value,
    /// Of what the rule calls `self`.
    pub shape: Shape<'s>,
}

/// Every rule of a schema, in order.
pub(super) fn places<'s>(schema: &'s Value, path: &str, places: &mut Vec<Place<'s>>) {
    collect(schema, schema, true, path, places);
}

/// `rules` has the rules and `typed` the types: they differ below `allOf`, where there are rules but no types.
fn collect<'s>(rules: &'s Value, typed: &'s Value, is_resource: bool, path: &str, places: &mut Vec<Place<'s>>) {
    for (index, rule) in list(&rules["x-kubernetes-validations"]).enumerate() {
        let shape = Shape::Schema { schema: typed, is_resource };
        places.push(Place { path: format!("{path}.x-kubernetes-validations[{index}]"), rule, shape });
    }
    for (name, below) in rules["properties"].as_object().into_iter().flatten() {
        let typed = &typed["properties"][name];
        collect(below, typed, is_embedded(typed), &format!("{path}.properties[{name}]"), places);
    }
    for field in ["items", "additionalProperties"] {
        if rules[field].is_object() {
            collect(&rules[field], &typed[field], is_embedded(&typed[field]), &format!("{path}.{field}"), places);
        }
    }
    for (index, below) in list(&rules["allOf"]).enumerate() {
        collect(below, typed, is_resource, &format!("{path}.allOf[{index}]"), places);
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[derive(Debug)]
pub(super) struct Rule {
    pub expression: Expression,
    /// What an error calls the rule: its message, else its text.
    pub name: String,
    /// Empty for none.
    pub message: String,
    pub message_expression: Option<Expression>,
    pub reason: String,
    /// From where the rule stands: `.a['b']` as `a.b`.
    pub field_path: String,
    pub old_self_is_optional: bool,
}

impl Rule {
    /// `None` for what was refused with its definition, or is not evaluated.
    fn compile(rule: &Value, shape: Shape<'_>) -> Option<Self> {
        let text = |field: &str| rule[field].as_str().unwrap_or_default().trim();
        let old_self_is_optional = rule["optionalOldSelf"] == true;
        let read = |source: &str| match expression::read(source, shape, old_self_is_optional) {
            Read::Ready(expression) => Some(expression),
            Read::NotEvaluated(_) | Read::Refused(_) => None,
        };
        let message = text("message");
        Some(Self {
            expression: read(text("rule"))?,
            name: if message.is_empty() { text("rule") } else { message }.to_owned(),
            message: message.to_owned(),
            message_expression: Some(text("messageExpression")).filter(|source| !source.is_empty()).and_then(read),
            reason: text("reason").to_owned(),
            field_path: field_path(text("fieldPath"), shape).unwrap_or_default(),
            old_self_is_optional,
        })
    }
}

/// A schema node with rules, or with such nodes below it.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub rules: Vec<Rule>,
    /// What errors show instead of the value.
    pub type_name: String,
    pub is_resource: bool,
    pub properties: BTreeMap<String, Node>,
    pub items: Option<Box<Node>>,
    pub additional: Option<Box<Node>>,
    pub all_of: Vec<Node>,
}

impl Node {
    pub fn compile(schema: &Value) -> Option<Self> {
        if !has_rules(schema) {
            return None;
        }
        expression::on_reading_stack(|| Self::of(schema, schema, true)).flatten()
    }

    fn of(rules: &Value, typed: &Value, is_resource: bool) -> Option<Self> {
        if !has_rules(rules) {
            return None;
        }
        let shape = Shape::Schema { schema: typed, is_resource };
        let below = |field: &str| Self::of(&rules[field], &typed[field], is_embedded(&typed[field])).map(Box::new);
        let properties = rules["properties"].as_object().into_iter().flatten().filter_map(|(name, rules)| {
            let typed = typed["properties"].get(name)?;
            Some((name.clone(), Self::of(rules, typed, is_embedded(typed))?))
        });
        Some(Self {
            rules: list(&rules["x-kubernetes-validations"]).filter_map(|rule| Rule::compile(rule, shape)).collect(),
            type_name: typed["type"].as_str().unwrap_or_default().to_owned(),
            is_resource,
            properties: properties.collect(),
            items: below("items"),
            additional: below("additionalProperties"),
            all_of: list(&rules["allOf"]).filter_map(|rules| Self::of(rules, typed, is_resource)).collect(),
        })
    }
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.iter().any(|(name, below)| match name.as_str() {
            "x-kubernetes-validations" => below.as_array().is_some_and(|rules| !rules.is_empty()),
            "properties" => below.as_object().into_iter().flatten().any(|(_, below)| has_rules(below)),
            "items" | "additionalProperties" => has_rules(below),
            "allOf" => list(below).any(has_rules),
            _ => false,
        }),
        _ => false,
    }
}

/// A rule's `fieldPath` (`.spec.a`, `.spec['a.b']`) as errors show it; `None` when the schema has no such field.
pub(super) fn field_path(path: &str, shape: Shape<'_>) -> Option<String> {
    let Shape::Schema { mut schema, .. } = shape else { return None };
    let mut shown = String::new();
    let mut rest = path.trim();
    while !rest.is_empty() {
        let (name, after) = if let Some(quoted) = rest.strip_prefix("['") {
            let (name, after) = quoted.split_once("']")?;
            (name.replace("\\'", "'").replace("\\\\", "\\"), after)
        } else {
            let named = rest.strip_prefix('.')?;
            let (name, after) = named.split_at(named.find(['.', '[']).unwrap_or(named.len()));
            (name.to_owned(), after)
        };
        if schema["additionalProperties"].is_object() {
            schema = &schema["additionalProperties"];
            shown.push_str(&format!("[{name}]"));
        } else {
            schema = schema["properties"].get(&name)?;
            if !shown.is_empty() {
                shown.push('.');
            }
            shown.push_str(&name);
        }
        rest = after;
    }
    Some(shown)
}
