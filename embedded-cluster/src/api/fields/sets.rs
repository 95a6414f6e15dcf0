//! Sets of field paths and their encoding, `FieldsV1`.
//!
//! A path's elements are written as FieldsV1 writes them: `f:name` for a field, `k:{"name":"app"}` for an item of a
//! list that is a map, `v:"text"` for an item of a list that is a set.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::kinds::Kind;
use super::super::patch::lists::{self, Keys, ListRule};

pub(super) type Path = Vec<String>;
pub(super) type Set = BTreeSet<Path>;

/// Fields that nobody owns.
const SYSTEM: [&str; 9] = [
    "managedFields",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "namespace",
];

/// All leaves of an object: plain values, lists and maps that are one value, items of keyed lists.
pub(super) fn leaves(kind: &Kind, object: &Value) -> Set {
    let mut set = Set::new();
    let mut names = Vec::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match name.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                names.push("metadata");
                for (field, value) in value.as_object().into_iter().flatten() {
                    if field != "name" && field != "generateName" && !SYSTEM.contains(&field.as_str()) {
                        names.push(field);
                        collect(kind, &mut names, &mut vec!["f:metadata".to_owned(), format!("f:{field}")], value, &mut set);
                        names.pop();
                    }
                }
                names.pop();
            }
            _ => {
                names.push(name);
                collect(kind, &mut names, &mut vec![format!("f:{name}")], value, &mut set);
                names.pop();
            }
        }
    }
    set
}

fn collect<'a>(kind: &Kind, names: &mut Vec<&'a str>, path: &mut Path, value: &'a Value, set: &mut Set) {
    match value {
        Value::Object(map) if !map.is_empty() && !lists::is_atomic_map(kind, names) => {
            for (name, value) in map {
                names.push(name);
                path.push(format!("f:{name}"));
                collect(kind, names, path, value, set);
                path.pop();
                names.pop();
            }
        }
        Value::Array(items) => match lists::rule(kind, names) {
            ListRule::Atomic => drop(set.insert(path.clone())),
            ListRule::Set => {
                for item in items {
                    path.push(format!("v:{item}"));
                    set.insert(path.clone());
                    path.pop();
                }
            }
            ListRule::Map(keys) => {
                for item in items {
                    path.push(item_key(keys, item));
                    set.insert(path.clone());
                    for (name, value) in item.as_object().into_iter().flatten() {
                        names.push(name);
                        path.push(format!("f:{name}"));
                        collect(kind, names, path, value, set);
                        path.pop();
                        names.pop();
                    }
                    path.pop();
                }
            }
        },
        _ => drop(set.insert(path.clone())),
    }
}

/// The path element of an item of a keyed list.
pub(super) fn item_key(keys: Keys<'_>, item: &Value) -> String {
    let fields: Map<String, Value> = keys.names().into_iter().map(|key| (key.to_owned(), key_value(item, key))).collect();
    format!("k:{}", Value::Object(fields))
}

/// A key field of an item; `protocol` has a default that the list's keys are compared with.
pub(super) fn key_value(item: &Value, key: &str) -> Value {
    match item.get(key) {
        None | Some(Value::Null) if key == "protocol" => "TCP".into(),
        None => Value::Null,
        Some(value) => value.clone(),
    }
}

/// The position of the item that a path element names.
pub(super) fn position(items: &[Value], element: &str) -> Option<usize> {
    if let Some(key) = element.strip_prefix("k:") {
        let key: Map<String, Value> = serde_json::from_str(key).ok()?;
        items.iter().position(|item| key.iter().all(|(name, value)| key_value(item, name) == *value))
    } else {
        let wanted: Value = serde_json::from_str(element.strip_prefix("v:")?).ok()?;
        items.iter().position(|item| *item == wanted)
    }
}

pub(super) fn lookup<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |at, element| match element.strip_prefix("f:") {
        Some(field) => at.get(field),
        None => at.as_array().and_then(|items| items.get(position(items, element)?)),
    })
}

pub(super) fn encode(set: &Set) -> Value {
    let mut root = Map::new();
    for path in set {
        let mut at = &mut root;
        for (index, element) in path.iter().enumerate() {
            let fresh = !at.contains_key(element);
            let entry = at.entry(element.clone()).or_insert_with(|| json!({}));
            // Values are made here only, and are always maps.
            let Value::Object(next) = entry else { break };
            at = next;
            // An item that is owned itself and has owned fields is told by ".".
            if index + 1 == path.len() && (!element.starts_with("f:") || !fresh) {
                at.insert(".".to_owned(), json!({}));
            }
        }
    }
    tidy(&mut root);
    Value::Object(root)
}

/// `{".": {}}` alone is written `{}`.
fn tidy(map: &mut Map<String, Value>) {
    if map.len() == 1 && map.contains_key(".") {
        map.clear();
    }
    for value in map.values_mut() {
        if let Value::Object(map) = value {
            tidy(map);
        }
    }
}

pub(super) fn decode(fields: &Value) -> Set {
    fn walk(fields: &Value, path: &mut Path, set: &mut Set) {
        let Some(map) = fields.as_object() else { return };
        if map.is_empty() && !path.is_empty() {
            set.insert(path.clone());
        }
        for (element, below) in map {
            if element == "." {
                set.insert(path.clone());
            } else {
                path.push(element.clone());
                walk(below, path, set);
                path.pop();
            }
        }
    }
    let mut set = Set::new();
    walk(fields, &mut Vec::new(), &mut set);
    set
}

/// `.spec.containers[name="app"].image`
pub(super) fn display(path: &[String]) -> String {
    let mut out = String::new();
    for element in path {
        if let Some(field) = element.strip_prefix("f:") {
            out.push('.');
            out.push_str(field);
        } else if let Some(key) = element.strip_prefix("k:") {
            let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
            let parts: Vec<String> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
            out.push_str(&format!("[{}]", parts.join(",")));
        } else {
            out.push_str(&format!("[={}]", element.strip_prefix("v:").unwrap_or(element)));
        }
    }
    out
}
