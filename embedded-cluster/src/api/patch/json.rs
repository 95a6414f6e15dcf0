//! JSON patches (RFC 6902).

use json_patch::{Patch, PatchOperation};
use serde_json::{Value, json};

use super::super::status::Refusal;

/// kube-apiserver's bound (`maxJSONPatchOperations`).
const OPERATIONS: usize = 10_000;
/// Bytes that `copy` operations may copy in one patch: they could double an object without end (`JSONPatchMaxCopyBytes`).
const SIZE: usize = 3 * 1024 * 1024;
/// What a reader of JSON takes (serde_json's own bound). Operations on what others made could nest values without end, and
/// whoever walks those needs as much stack.
const DEPTH: usize = 128;

pub(super) fn read(body: &[u8]) -> Result<Patch, Refusal> {
    let operations: Vec<Value> =
        serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    if operations.len() > OPERATIONS {
        let message = format!("The allowed maximum operations in a JSON patch is {OPERATIONS}, got {}", operations.len());
        return Err(Refusal::new(413, "RequestEntityTooLarge", message));
    }
    // An operation that there is none of is found out when it is its turn, as any other that does not work.
    serde_json::from_value(Value::Array(operations)).map_err(|error| rejected(&error.to_string()))
}

pub(super) fn apply(patch: &Patch, current: &Value) -> Result<Value, Refusal> {
    let mut object = current.clone();
    let mut copied = 0;
    for operation in &patch.0 {
        if let PatchOperation::Copy(copy) = operation {
            copied += object.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied > SIZE {
                let message =
                    format!("Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {SIZE}");
                return Err(Refusal::new(413, "RequestEntityTooLarge", message));
            }
        }
        let nested = match operation {
            PatchOperation::Add(add) => levels(add.path.as_str()) + depth(&add.value),
            PatchOperation::Replace(replace) => levels(replace.path.as_str()) + depth(&replace.value),
            PatchOperation::Copy(copy) => levels(copy.path.as_str()) + object.pointer(copy.from.as_str()).map_or(0, depth),
            PatchOperation::Move(moved) => levels(moved.path.as_str()) + object.pointer(moved.from.as_str()).map_or(0, depth),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
        };
        if nested > DEPTH {
            return Err(rejected(&format!("the patch makes a value of {nested} levels; {DEPTH} are allowed")));
        }
        json_patch::patch(&mut object, std::slice::from_ref(operation)).map_err(|error| rejected(&error.to_string()))?;
    }
    if object.is_object() { Ok(object) } else { Err(rejected("the patch leaves no object")) }
}

fn levels(path: &str) -> usize {
    path.matches('/').count()
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// `errors.NewGenericServerResponse(422)`: kube-apiserver keeps the reason to itself, here it is at least logged.
fn rejected(why: &str) -> Refusal {
    tracing::debug!(why, "a JSON patch does not fit");
    let mut refusal = Refusal::new(422, "Invalid", "the server rejected our request due to an error in our request");
    refusal.details = Some(json!({}));
    refusal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patched(current: &Value, patch: Value) -> Result<Value, u16> {
        let patch = read(patch.to_string().as_bytes()).map_err(|refusal| refusal.code)?;
        apply(&patch, current).map_err(|refusal| refusal.code)
    }

    #[test]
    fn operations_work_and_a_failed_test_refuses_all() {
        let object = json!({"metadata": {"labels": {"a": "1"}}, "list": [1, 2]});
        let patch = json!([{"op": "test", "path": "/metadata/labels/a", "value": "1"}, {"op": "add", "path": "/list/-", "value": 3},
            {"op": "remove", "path": "/metadata/labels/a"}]);
        assert_eq!(patched(&object, patch), Ok(json!({"metadata": {"labels": {}}, "list": [1, 2, 3]})));
        let patch = json!([{"op": "test", "path": "/metadata/labels/a", "value": "2"}, {"op": "remove", "path": "/list"}]);
        assert_eq!(patched(&object, patch), Err(422));
        assert_eq!(patched(&object, json!([{"op": "replace", "path": "/absent", "value": 1}])), Err(422));
        assert_eq!(patched(&object, json!([{"op": "fly"}])), Err(422));
        assert_eq!(patched(&object, json!([{"op": "replace", "path": "", "value": 1}])), Err(422), "nothing but an object is left");
    }

    #[test]
    fn copies_cannot_grow_an_object_without_bound() {
        let doubling: Vec<Value> = (0..40).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/a/x{n}")})).collect();
        assert_eq!(patched(&json!({"a": {"b": "0123456789"}}), Value::Array(doubling)), Err(413));
    }

    #[test]
    fn operations_cannot_nest_a_value_without_bound() {
        let within_itself: Vec<Value> = (0..40).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/a/x{n}")})).collect();
        assert_eq!(patched(&json!({"a": {}}), within_itself[..6].to_vec().into()).map(|object| depth(&object)), Ok(8));
        let deeper = |op: &str| -> Vec<Value> {
            let value =
                serde_json::from_str::<Value>(&format!("{}{}", r#"{"a":"#.repeat(100), "{}".to_owned() + &"}".repeat(100))).expect("JSON");
            let path = |n: usize| "/a".repeat(n * 100);
            (0..100).map(|n| json!({"op": op, "path": path(n) + "/a", "value": value})).collect()
        };
        for op in ["add", "replace"] {
            assert_eq!(patched(&json!({"a": {}}), deeper(op).into()), Err(422), "{op}");
        }
        // Each time what was nested is put below something new.
        let moved: Vec<Value> = (0..500)
            .flat_map(|_| {
                [
                    json!({"op": "add", "path": "/b", "value": {}}),
                    json!({"op": "move", "from": "/a", "path": "/b/a"}),
                    json!({"op": "move", "from": "/b", "path": "/a"}),
                ]
            })
            .collect();
        assert_eq!(patched(&json!({"a": {}}), moved.into()), Err(422));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_applied(body in ".*") {
            if let Ok(patch) = read(body.as_bytes()) {
                let _ = apply(&patch, &json!({"metadata": {}}));
            }
        }
    }
}
