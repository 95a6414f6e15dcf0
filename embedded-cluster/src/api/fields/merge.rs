//! Merging an applied configuration into the live object, and taking out what is no longer applied.

use serde_json::{Map, Value};

use super::super::kinds::Kind;
use super::super::patch::lists::{self, ListRule};
use super::sets::{self, Set};

pub(super) fn merge<'a>(kind: &Kind, names: &mut Vec<&'a str>, live: &mut Value, applied: &'a Value) {
    match applied {
        Value::Object(fields) if !lists::is_atomic_map(kind, names) => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            let Some(object) = live.as_object_mut() else { return };
            for (name, value) in fields {
                if value.is_null() {
                    continue;
                }
                names.push(name);
                merge(kind, names, object.entry(name.clone()).or_insert(Value::Null), value);
                names.pop();
            }
        }
        Value::Array(items) => {
            if !live.is_array() {
                *live = Value::Array(Vec::new());
            }
            let Some(list) = live.as_array_mut() else { return };
            match lists::rule(kind, names) {
                ListRule::Atomic => list.clone_from(items),
                ListRule::Set => {
                    for item in items {
                        if !list.contains(item) {
                            list.push(item.clone());
                        }
                    }
                }
                ListRule::Map(keys) => {
                    for item in items {
                        let at = sets::position(list, &sets::item_key(keys, item));
                        match at.and_then(|at| list.get_mut(at)) {
                            Some(existing) => merge(kind, names, existing, item),
                            None => list.push(item.clone()),
                        }
                    }
                }
            }
        }
        plain => *live = plain.clone(),
    }
}

/// Removes fields that lost their last owner. `kept` is everything that someone owns.
pub(super) fn remove(object: &mut Value, removed: &Set, kept: &Set) {
    // A set is sorted, so that an item goes before its fields: without its key field it could not be found.
    for path in removed {
        let held = kept.range(path.clone()..).next().is_some_and(|next| next.starts_with(path));
        if !held {
            remove_path(object, path);
        }
    }
}

/// Returns whether the value is left empty by the removal.
fn remove_path(at: &mut Value, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    if let Some(field) = first.strip_prefix("f:") {
        let Some(map) = at.as_object_mut() else { return false };
        let gone = rest.is_empty() || map.get_mut(field).is_some_and(|below| remove_path(below, rest));
        if gone {
            map.remove(field);
        }
        gone && map.is_empty()
    } else {
        let Some(list) = at.as_array_mut() else { return false };
        let Some(index) = sets::position(list, first) else { return false };
        let gone = rest.is_empty();
        if gone {
            list.remove(index);
        } else if let Some(item) = list.get_mut(index) {
            remove_path(item, rest);
        }
        gone && list.is_empty()
    }
}
