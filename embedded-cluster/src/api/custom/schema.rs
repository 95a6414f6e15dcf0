//! Structural schemas (`apiextensions.k8s.io/v1`): pruning, defaults, validation.
//!
//! CEL rules (`x-kubernetes-validations`) are not evaluated. Wording: `kubeOpenAPIResultToFieldErrors`.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::super::status::FieldError;
use super::formats;

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn preserves(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

/// Whether `schema` says something of a field, by its name or for all names.
fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema["properties"].get(name).or_else(|| schema.get("additionalProperties").filter(|any| any.is_object() || **any == true))
}

pub(super) fn prune(schema: &Value, value: &mut Value, path: &str, is_object_root: bool, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let keeps_all = preserves(schema);
            let is_resource = is_object_root || schema["x-kubernetes-embedded-resource"] == true;
            let names: Vec<String> = map.keys().cloned().collect();
            for name in names {
                if is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                match property(schema, &name) {
                    Some(below) => {
                        if let Some(value) = map.get_mut(&name) {
                            prune(below, value, &child(path, &name), false, unknown);
                        }
                    }
                    None if keeps_all => {}
                    None => {
                        unknown.push(child(path, &name));
                        map.remove(&name);
                    }
                }
            }
        }
        Value::Array(items) if !preserves(schema) || schema["items"].is_object() => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(&schema["items"], item, &format!("{path}[{index}]"), false, unknown);
            }
        }
        _ => {}
    }
}

pub(super) fn set_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, below) in schema["properties"].as_object().into_iter().flatten() {
                let missing = map.get(name).is_none_or(|value| value.is_null() && below["nullable"] != true);
                if missing && let Some(default) = below.get("default") {
                    map.insert(name.clone(), default.clone());
                }
                if let Some(value) = map.get_mut(name) {
                    set_defaults(below, value);
                }
            }
            if schema["additionalProperties"].is_object() {
                for value in map.values_mut() {
                    set_defaults(&schema["additionalProperties"], value);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                set_defaults(&schema["items"], item);
            }
        }
        _ => {}
    }
}

pub(super) fn validate(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let invalid = |detail: String| FieldError::invalid(path, value, &format!("{path} in body {detail}"));
    let either = schema["x-kubernetes-int-or-string"] == true;
    if let Some(wanted) = schema["type"].as_str()
        && !either
        && !is_type(value, wanted)
    {
        let found = Value::from(type_name(value));
        let mistake = FieldError::invalid(path, &found, &format!("{path} in body must be of type {wanted}: {found}"));
        errors.push(FieldError { reason: "FieldValueTypeInvalid", ..mistake });
        return;
    }
    if either && !(value.is_string() || value.is_i64() || value.is_u64()) {
        errors.push(invalid("must be of type integer or string".to_owned()));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let names: Vec<String> = allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        errors.push(FieldError::unsupported(path, value, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    match value {
        Value::Object(map) => object(schema, map, path, errors),
        Value::Array(items) => {
            let count = items.len() as u64;
            if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
                errors.push(FieldError::too_many(path, count, most));
            }
            if schema["minItems"].as_u64().is_some_and(|least| count < least) {
                errors.push(invalid(format!("should have at least {} items", schema["minItems"])));
            }
            for (index, item) in items.iter().enumerate() {
                validate(&schema["items"], item, &format!("{path}[{index}]"), errors);
            }
            duplicates(schema, items, path, errors);
        }
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
                errors.push(FieldError::too_long(path, most));
            }
            if schema["minLength"].as_u64().is_some_and(|least| length < least) {
                errors.push(invalid(format!("should be at least {} chars long", schema["minLength"])));
            }
            if let Some(pattern) = schema["pattern"].as_str()
                && !formats::matches(pattern, text)
            {
                errors.push(invalid(format!("should match '{pattern}'")));
            }
            if let Some(format) = schema["format"].as_str()
                && !formats::is(format, text)
            {
                errors.push(invalid(format!("must be of type {format}: {value}")));
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(0.0);
            let bound = |name: &str| schema[name].as_f64();
            if bound("minimum").is_some_and(|least| number < least || number <= least && schema["exclusiveMinimum"] == true) {
                errors.push(invalid(format!("should be greater than or equal to {}", bound("minimum").unwrap_or_default())));
            }
            if bound("maximum").is_some_and(|most| number > most || number >= most && schema["exclusiveMaximum"] == true) {
                errors.push(invalid(format!("should be less than or equal to {}", bound("maximum").unwrap_or_default())));
            }
            if let Some(step) = bound("multipleOf").filter(|step| *step != 0.0)
                && (number / step).fract() != 0.0
            {
                errors.push(invalid(format!("should be a multiple of {step}")));
            }
        }
        _ => {}
    }
    combinations(schema, value, path, errors);
}

fn object(schema: &Value, map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(name) {
            errors.push(FieldError::required(child(path, name), ""));
        }
    }
    let count = map.len() as u64;
    if let Some(most) = schema["maxProperties"].as_u64().filter(|most| count > *most) {
        errors.push(FieldError::too_many(path, count, most));
    }
    if schema["minProperties"].as_u64().is_some_and(|least| count < least) {
        let detail = format!("{path} in body should have at least {} properties", schema["minProperties"]);
        errors.push(FieldError::invalid(path, &Value::Object(map.clone()), &detail));
    }
    for (name, value) in map {
        if let Some(below) = property(schema, name) {
            validate(below, value, &child(path, name), errors);
        }
    }
}

/// Lists that are sets, or maps by some of their items' fields, hold nothing twice (`listtype.ValidateListSetsAndMaps`).
fn duplicates(schema: &Value, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.clone()),
        Some("map") => {
            let key = |key: &&str| item.get(*key).map(|value| ((*key).to_owned(), value.clone()));
            Some(Value::Object(keys.iter().filter_map(key).collect()))
        }
        _ => None,
    };
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let Some(identity) = identity(item) else { return };
        if !seen.insert(identity.to_string()) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), &identity));
        }
    }
}

fn combinations(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let fits = |schema: &Value| {
        let mut mistakes = Vec::new();
        validate(schema, value, path, &mut mistakes);
        mistakes.is_empty()
    };
    for all in schema["allOf"].as_array().into_iter().flatten() {
        validate(all, value, path, errors);
    }
    let wrong = if schema["anyOf"].as_array().is_some_and(|any| !any.iter().any(fits)) {
        Some("must validate at least one schema (anyOf)")
    } else if schema["oneOf"].as_array().is_some_and(|one| one.iter().filter(|s| fits(s)).count() != 1) {
        Some("must validate one and only one schema (oneOf)")
    } else if schema["not"].is_object() && fits(&schema["not"]) {
        Some("must not validate the schema (not)")
    } else {
        None
    };
    if let Some(wrong) = wrong {
        errors.push(FieldError::invalid(path, value, &format!("{path} in body {wrong}")));
    }
}

fn is_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        _ => true,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1},
            "colour": {"type": "string", "default": "red", "enum": ["red", "blue"]},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "host": {"type": "string", "pattern": "^[a-z.]+$", "maxLength": 8},
            "address": {"type": "string", "format": "ipv4"},
            "rules": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}}}}}}}})
    }

    fn mistakes(object: Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate(&schema(), &object, "", &mut errors);
        errors.into_iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let mut object = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}, "extra": 1,
            "spec": {"size": 1, "other": 2, "free": {"any": {"thing": 1}}, "map": {"k": "v"}}});
        let mut unknown = Vec::new();
        prune(&schema(), &mut object, "", true, &mut unknown);
        set_defaults(&schema(), &mut object);
        assert_eq!(unknown, ["extra", "spec.other"]);
        assert_eq!(object["spec"], json!({"size": 1, "free": {"any": {"thing": 1}}, "map": {"k": "v"}, "colour": "red"}));
        assert_eq!(object["metadata"]["name"], "n");
    }

    #[test]
    fn texts_and_lists_are_held_to_their_rules() {
        assert!(
            mistakes(json!({"spec": {"size": 1, "host": "a.b", "address": "10.0.0.1", "rules": [{"name": "a"}, {"name": "b"}]}}))
                .is_empty()
        );
        assert_eq!(
            mistakes(json!({"spec": {"size": 1, "host": "A", "address": "10.0.0.256"}})),
            [
                "spec.host: Invalid value: \"A\": spec.host in body should match '^[a-z.]+$'",
                "spec.address: Invalid value: \"10.0.0.256\": spec.address in body must be of type ipv4: \"10.0.0.256\""
            ]
        );
        assert_eq!(mistakes(json!({"spec": {"size": 1, "host": "abcdefghi"}})), ["spec.host: Too long: may not be more than 8 bytes"]);
        assert_eq!(
            mistakes(json!({"spec": {"size": 1, "rules": [{"name": "a"}, {"name": "a"}, {}, {"name": "b"}]}})),
            ["spec.rules: Too many: 4: must have at most 3 items", "spec.rules[1]: Duplicate value: {\"name\":\"a\"}"]
        );
    }

    #[test]
    fn mistakes_are_told_as_kube_apiserver_does() {
        assert!(mistakes(json!({"spec": {"size": 2, "port": "http", "colour": "blue"}})).is_empty());
        assert_eq!(mistakes(json!({"spec": {}})), ["spec.size: Required value"]);
        assert_eq!(
            mistakes(json!({"spec": {"size": "x"}})),
            ["spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\""]
        );
        assert_eq!(
            mistakes(json!({"spec": {"size": 0, "colour": "green"}})),
            [
                "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
                "spec.colour: Unsupported value: \"green\": supported values: \"red\", \"blue\""
            ]
        );
    }
}
