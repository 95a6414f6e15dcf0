//! Request bodies: JSON or YAML, of the right kind, with fields that the kind has.

use serde_json::Value;

use super::kinds::Kind;
use super::router::Call;
use super::status::Refusal;

/// The body as JSON value, whatever it was written in.
///
/// # Errors
/// 400 when it cannot be read, 415 for media types that are not served.
pub(crate) fn parse(call: &Call) -> Result<Value, Refusal> {
    match call.content_type() {
        "application/yaml" => yaml(&call.body),
        "" | "application/json" => json(&call.body),
        super::protobuf::MEDIA_TYPE => super::protobuf::decode(&call.body),
        _ => Err(Refusal::unsupported_media_type("application/json, application/yaml, application/vnd.kubernetes.protobuf")),
    }
}

pub(crate) fn json(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("couldn't get version/kind; json parse error: {error}")))
}

pub(crate) fn yaml(body: &[u8]) -> Result<Value, Refusal> {
    let text = std::str::from_utf8(body).map_err(|error| Refusal::bad_request(format!("the body is no UTF-8: {error}")))?;
    serde_saphyr::from_str(text).map_err(|error| {
        // The first line says what is wrong; the rest is a drawing for terminals.
        let error = error.to_string();
        Refusal::bad_request(format!("error converting YAML to JSON: yaml: {}", error.lines().next().unwrap_or_default()))
    })
}

/// The body as an object of the kind.
///
/// # Errors
/// 400 when it is of another kind or none.
pub(crate) fn object(call: &Call, kind: &Kind) -> Result<Value, Refusal> {
    let mut object = parse(call)?;
    of_kind(&mut object, kind)?;
    Ok(object)
}

/// Checks apiVersion and kind, which may be left out, and that there are metadata.
pub(crate) fn of_kind(object: &mut Value, kind: &Kind) -> Result<(), Refusal> {
    let api_version = kind.resource.api_version();
    let Some(map) = object.as_object_mut() else {
        return Err(Refusal::bad_request(format!("the object provided is unrecognized (must be of type {})", kind.resource.kind)));
    };
    let text = |map: &serde_json::Map<String, Value>, field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (given_version, given_kind) = (text(map, "apiVersion"), text(map, "kind"));
    let version_differs = !given_version.is_empty() && given_version != api_version;
    let kind_differs = !given_kind.is_empty() && given_kind != kind.resource.kind;
    if version_differs || kind_differs {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({given_version}, Kind={given_kind}) does not match the expected API version ({api_version}, Kind={})",
            kind.resource.kind
        )));
    }
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), kind.resource.kind.clone().into());
    match map.get("metadata") {
        None | Some(Value::Null) => drop(map.insert("metadata".to_owned(), serde_json::json!({}))),
        Some(Value::Object(_)) => {}
        Some(_) => return Err(cannot_handle(kind, "json: cannot unmarshal non-object into field metadata of type v1.ObjectMeta")),
    }
    Ok(())
}

fn cannot_handle(kind: &Kind, why: &str) -> Refusal {
    let Kind { resource, .. } = kind;
    Refusal::bad_request(format!("{} in version \"{}\" cannot be handled as a {}: {why}", resource.kind, resource.version, resource.kind))
}

const BAD_AMOUNT: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Whether what a container, claim or the like requests or is limited to is no amount.
fn has_bad_amount(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(name, value)| match name.as_str() {
            "resources" => ["requests", "limits"].iter().any(|list| {
                let amounts = value.get(*list).and_then(Value::as_object).into_iter().flatten();
                amounts.filter_map(|(_, amount)| amount.as_str()).any(|amount| crate::store::amount(amount).is_none())
            }),
            _ => has_bad_amount(value),
        }),
        Value::Array(list) => list.iter().any(has_bad_amount),
        _ => false,
    }
}

/// The base64 decoder's complaint in Go's words; of other mistakes Go would name its structs.
fn wrong_type(error: &str) -> String {
    match error.split_once("Invalid symbol ").and_then(|(_, rest)| rest.split_once(", offset ")) {
        Some((_, at)) => format!("illegal base64 data at input byte {}", at.trim_end_matches('.')),
        None => format!("json: {error}"),
    }
}

/// Reads an object by its type and drops fields that the type does not have, with warnings or an error as the
/// parameter `fieldValidation` wants.
///
/// # Errors
/// 400 when a field is of the wrong type, and for unknown fields with `Strict`.
pub(crate) fn typed(call: &Call, kind: &Kind, object: Value, warnings: &mut Vec<String>) -> Result<Value, Refusal> {
    let (known, unknown) = match kind.round_trip {
        Some(round_trip) => {
            if has_bad_amount(&object) {
                return Err(cannot_handle(kind, BAD_AMOUNT));
            }
            let mut known = round_trip(&object).map_err(|error| cannot_handle(kind, &wrong_type(&error.to_string())))?;
            let mut unknown = Vec::new();
            unknown_fields(&object, &known, String::new(), &mut unknown);
            only_given(&object, &mut known);
            (known, unknown)
        }
        None => {
            let mut known = object;
            let unknown = super::custom::prune(kind, &mut known);
            (known, unknown)
        }
    };
    let unknown: Vec<String> = unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect();
    match call.query.get("fieldValidation").unwrap_or("Warn") {
        "Ignore" => {}
        "Warn" => {
            // A patch may be applied more than once.
            warnings.clear();
            warnings.extend(unknown);
        }
        "Strict" => {
            if !unknown.is_empty() {
                return Err(cannot_handle(kind, &format!("strict decoding error: {}", unknown.join(", "))));
            }
        }
        other => {
            return Err(Refusal::new(
                422,
                "Invalid",
                format!(
                    "ListOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
                ),
            ));
        }
    }
    Ok(known)
}

/// Takes out what reading by the type added: required fields that were left out come back as empty values.
pub(crate) fn only_given(given: &Value, known: &mut Value) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            known.retain(|name, _| given.contains_key(name));
            for (name, value) in known {
                if let Some(given) = given.get(name) {
                    only_given(given, value);
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (given, known) in given.iter().zip(known) {
                only_given(given, known);
            }
        }
        _ => {}
    }
}

fn unknown_fields(given: &Value, known: &Value, path: String, found: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(known) => unknown_fields(value, known, path, found),
                    None if value.is_null() => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown_fields(given, known, format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            for read in [json(&bytes), yaml(&bytes)] {
                if let Err(refusal) = read {
                    proptest::prop_assert_eq!(refusal.code, 400);
                }
            }
        }

        /// Texts that are nearly YAML get further than bytes do.
        #[test]
        fn any_marks_are_read_or_refused(text in "[a-c:{}\\[\\],&*!|>?%@\"'# \n-]{0,80}") {
            if let Err(refusal) = yaml(text.as_bytes()) {
                proptest::prop_assert_eq!(refusal.code, 400);
            }
        }

        #[test]
        fn json_is_yaml_too(text in "[ -~]{0,20}", number in proptest::num::i32::ANY) {
            let value = serde_json::json!({"text": text, "list": [number, null, true, {}]});
            proptest::prop_assert_eq!(yaml(value.to_string().as_bytes()).ok(), Some(value));
        }
    }
}
