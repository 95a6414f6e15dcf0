//! Strategic merge patches: lists of objects are merged by key, with directives.

use serde_json::{Map, Value};

use super::super::kinds::Kind;
use super::super::status::Refusal;
use super::lists::{self, ListRule};

const DIRECTIVE: &str = "$patch";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";
const RETAIN: &str = "$retainKeys";

pub(super) fn apply(kind: &Kind, current: &Value, patch: &Value) -> Result<Value, Refusal> {
    let mut path = Vec::new();
    merge(kind, &mut path, Some(current), patch)?.ok_or_else(|| Refusal::new(422, "Invalid", "the patch deletes the object; use DELETE"))
}

/// The merged value; `None` when a directive deletes it.
fn merge<'a>(kind: &Kind, path: &mut Vec<&'a str>, current: Option<&Value>, patch: &'a Value) -> Result<Option<Value>, Refusal> {
    match patch {
        Value::Object(changes) => object(kind, path, current.and_then(Value::as_object), changes),
        Value::Array(changes) => list(kind, path, current.and_then(Value::as_array), changes).map(Some),
        Value::Null => Ok(None),
        plain => Ok(Some(plain.clone())),
    }
}

fn object<'a>(
    kind: &Kind,
    path: &mut Vec<&'a str>,
    current: Option<&Map<String, Value>>,
    changes: &'a Map<String, Value>,
) -> Result<Option<Value>, Refusal> {
    let mut merged = match changes.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => Map::new(),
        Some("delete") => return Ok(None),
        Some("merge") | None => current.cloned().unwrap_or_default(),
        Some(other) => return Err(bad_directive(other)),
    };
    if let Some(retained) = changes.get(RETAIN).and_then(Value::as_array) {
        merged.retain(|name, _| retained.iter().any(|kept| kept == name));
    }
    for (name, change) in changes {
        if name == DIRECTIVE || name == RETAIN || name.starts_with(ORDER) {
            continue;
        }
        if let Some(field) = name.strip_prefix(DELETE_FROM) {
            if let (Some(list), Some(gone)) = (merged.get_mut(field).and_then(Value::as_array_mut), change.as_array()) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        path.push(name);
        let value = merge(kind, path, merged.get(name), change)?;
        path.pop();
        match value {
            Some(value) => drop(merged.insert(name.clone(), value)),
            None => drop(merged.remove(name)),
        }
    }
    for (name, order) in changes {
        if let (Some(field), Some(order)) = (name.strip_prefix(ORDER), order.as_array()) {
            path.push(field);
            let rule = lists::rule(kind, path);
            path.pop();
            if let Some(list) = merged.get_mut(field).and_then(Value::as_array_mut) {
                sort(list, order, rule);
            }
        }
    }
    Ok(Some(Value::Object(merged)))
}

fn list<'a>(kind: &Kind, path: &mut Vec<&'a str>, current: Option<&Vec<Value>>, changes: &'a [Value]) -> Result<Value, Refusal> {
    let key = match lists::rule(kind, path) {
        ListRule::Atomic => return Ok(Value::Array(changes.iter().filter(|item| !is_directive(item)).map(without_directives).collect())),
        ListRule::Set => {
            let mut merged = current.cloned().unwrap_or_default();
            for change in changes {
                if !merged.contains(change) {
                    merged.push(change.clone());
                }
            }
            return Ok(Value::Array(merged));
        }
        ListRule::Map(keys) => keys.first(),
    };
    let replaces = changes.iter().any(|change| change[DIRECTIVE] == "replace" && change.get(key).is_none());
    let mut merged = if replaces { Vec::new() } else { current.cloned().unwrap_or_default() };
    for change in changes {
        let Some(change_fields) = change.as_object() else {
            return Err(Refusal::bad_request(format!("expected an object in the list {}", path.join("."))));
        };
        let directive = change_fields.get(DIRECTIVE).and_then(Value::as_str);
        let Some(id) = change_fields.get(key) else {
            if directive == Some("replace") {
                continue;
            }
            return Err(Refusal::bad_request(format!("map: {change} does not contain declared merge key: {key}")));
        };
        let at = merged.iter().position(|item| item.get(key) == Some(id));
        match (directive, at) {
            (Some("delete"), Some(at)) => drop(merged.remove(at)),
            (Some("delete"), None) => {}
            (None | Some("merge" | "replace"), Some(at)) => {
                let value = merge(kind, path, merged.get(at), change)?;
                if let (Some(slot), Some(value)) = (merged.get_mut(at), value) {
                    *slot = value;
                }
            }
            (None | Some("merge" | "replace"), None) => merged.extend(merge(kind, path, None, change)?),
            (Some(other), _) => return Err(bad_directive(other)),
        }
    }
    Ok(Value::Array(merged))
}

/// Items named by `$setElementOrder` come in its order; others keep their place after the item they followed.
fn sort(list: &mut Vec<Value>, order: &[Value], rule: ListRule<'_>) {
    let position = |item: &Value| match rule {
        ListRule::Map(keys) => {
            let key = keys.first();
            order.iter().position(|wanted| wanted.get(key).is_some() && wanted.get(key) == item.get(key))
        }
        _ => order.iter().position(|wanted| wanted == item),
    };
    let mut last = 0;
    let mut keyed: Vec<(usize, bool, Value)> = Vec::with_capacity(list.len());
    for item in list.drain(..) {
        let found = position(&item);
        last = found.unwrap_or(last);
        keyed.push((last, found.is_none(), item));
    }
    keyed.sort_by_key(|(at, follows, _)| (*at, *follows));
    list.extend(keyed.into_iter().map(|(.., item)| item));
}

fn is_directive(item: &Value) -> bool {
    item.as_object().is_some_and(|map| map.len() == 1 && map.contains_key(DIRECTIVE))
}

/// Directives have no meaning below an atomic list, and must not be stored.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(name, value)| !(name.starts_with('$') || value.is_null()))
                .map(|(name, value)| (name.clone(), without_directives(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(without_directives).collect()),
        plain => plain.clone(),
    }
}

fn bad_directive(directive: &str) -> Refusal {
    Refusal::bad_request(format!("Unknown patch type: '{directive}'"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::super::kinds::builtin;
    use super::super::merge::tests::any_json;
    use super::*;

    fn deployment(patch: Value) -> Value {
        let current = json!({"spec": {"replicas": 2, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "template": {"spec": {
            "containers": [
                {"name": "app", "image": "app:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["x", "y"]},
                {"name": "proxy", "image": "proxy:1"}],
            "volumes": [{"name": "v", "emptyDir": {}}]}}}});
        apply(&builtin("apps", "v1", "deployments").unwrap(), &current, &patch).unwrap()
    }

    #[test]
    fn containers_and_env_merge_by_name_and_args_are_replaced() {
        let result = deployment(json!({"spec": {"template": {"spec": {"containers": [
            {"name": "app", "args": ["z"], "env": [{"name": "B", "value": "3"}, {"name": "A", "$patch": "delete"}]},
            {"name": "late", "image": "late:1"}]}}}}));
        assert_eq!(
            result["spec"]["template"]["spec"]["containers"],
            json!([{"name": "app", "image": "app:1", "env": [{"name": "B", "value": "3"}], "args": ["z"]},
                {"name": "proxy", "image": "proxy:1"}, {"name": "late", "image": "late:1"}])
        );
        assert_eq!(result["spec"]["replicas"], 2);
    }

    #[test]
    fn directives_replace_retain_delete_and_order() {
        let result =
            deployment(json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}, "replicas": null, "template": {"spec": {
            "$setElementOrder/containers": [{"name": "proxy"}, {"name": "app"}],
            "containers": [{"name": "proxy", "image": "proxy:2"}],
            "volumes": [{"$patch": "replace"}, {"name": "w", "emptyDir": {}}]}}}}));
        assert_eq!(result["spec"]["strategy"], json!({"type": "Recreate"}));
        assert!(result["spec"].get("replicas").is_none());
        let names: Vec<_> = result["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["proxy", "app"]);
        assert_eq!(result["spec"]["template"]["spec"]["volumes"], json!([{"name": "w", "emptyDir": {}}]));
        assert!(!result.to_string().contains('$'));
    }

    #[test]
    fn primitive_lists_lose_named_items() {
        let kind = builtin("", "v1", "configmaps").unwrap();
        let current = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
        assert_eq!(apply(&kind, &current, &patch).unwrap(), json!({"metadata": {"finalizers": ["b", "c"]}}));
    }

    #[test]
    fn a_missing_merge_key_is_a_bad_request() {
        let kind = builtin("", "v1", "pods").unwrap();
        let refusal = apply(&kind, &json!({}), &json!({"spec": {"containers": [{"image": "x"}]}})).unwrap_err();
        assert_eq!(refusal.code, 400);
        assert!(refusal.message.contains("does not contain declared merge key: name"), "{}", refusal.message);
    }

    proptest! {
        #[test]
        fn any_patch_is_applied_or_refused(current in any_json(), patch in any_json()) {
            let _ = apply(&builtin("", "v1", "pods").unwrap(), &current, &patch);
        }

        #[test]
        fn an_object_as_its_own_patch_changes_nothing(names in prop::collection::btree_set("[a-z]{1,5}", 0..6), replicas in 0..9) {
            let containers: Vec<Value> = names.iter().map(|n| json!({"name": n, "image": format!("{n}:1"), "args": [n]})).collect();
            let object = json!({"spec": {"replicas": replicas, "template": {"spec": {"containers": containers}}}});
            let kind = builtin("apps", "v1", "deployments").unwrap();
            prop_assert_eq!(apply(&kind, &object, &object).unwrap(), object);
        }
    }
}
