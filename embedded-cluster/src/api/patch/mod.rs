//! The four kinds of patches.

mod apply;
mod json;
pub(super) mod lists;
mod merge;
mod strategic;

use serde_json::{Value, json};

use super::body;
use super::kinds::Kind;
use super::route::Target;
use super::router::Call;
use super::status::Refusal;

/// A patch as it was sent.
pub(super) enum Patch {
    /// RFC 6902
    Json(json_patch::Patch),
    /// RFC 7386
    Merge(Value),
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}

/// What a patch made.
pub(super) struct Patched {
    pub object: Value,
    /// `metadata.managedFields` is already up to date.
    pub fields_are_managed: bool,
}

impl Patch {
    /// # Errors
    /// 400 for what is no such patch, 415 for an unknown kind of patch.
    pub fn read(call: &Call, kind: &Kind) -> Result<Self, Refusal> {
        match call.content_type() {
            "application/json-patch+json" => json::read(&call.body).map(Self::Json),
            "application/merge-patch+json" => object(json_body(&call.body)?).map(Self::Merge),
            // Custom resources have no Go struct to take merge keys from.
            "application/strategic-merge-patch+json" if kind.custom.is_none() => object(json_body(&call.body)?).map(Self::Strategic),
            "application/apply-patch+yaml" => {
                let mut config = object(body::yaml(&call.body)?)?;
                body::of_kind(&mut config, kind)?;
                Ok(Self::Apply(config))
            }
            _ => Err(Refusal::unsupported_media_type(
                "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }

    /// What kube-apiserver makes of a strategic patch after which a field is of the wrong type: 422 with the patch as Go prints it.
    pub fn does_not_fit(&self, refusal: Refusal) -> Refusal {
        let Self::Strategic(patch) = self else { return refusal };
        let Some((_, found)) = refusal.message.split_once("json: invalid type: ") else { return refusal };
        let Some((given, wanted)) = found.rsplit_once(", expected ") else { return refusal };
        let given = match given.split_whitespace().next() {
            Some("string") => "string",
            Some("boolean") => "bool",
            Some("integer") => "int64",
            Some("floating") => "float64",
            Some("map") => "map[string]interface {}",
            _ => "[]interface {}",
        };
        let why = match wanted {
            "i32" => "unrecognized type: int32".to_owned(),
            "i64" => "unrecognized type: int64".to_owned(),
            "a boolean" => "unrecognized type: bool".to_owned(),
            "a string" => "unrecognized type: string".to_owned(),
            "a sequence" => format!("cannot restore slice from {given}"),
            "a map" => format!("cannot restore map from {given}"),
            _ => format!("cannot restore struct from: {given}"),
        };
        let message = format!("Invalid value: \"{}\": {why}", go_text(patch));
        let cause = json!({"reason": "FieldValueInvalid", "message": message, "field": "patch"});
        let mut refusal = Refusal::new(422, "Invalid", format!(" \"\" is invalid: patch: {message}"));
        refusal.details = Some(json!({"causes": [cause]}));
        refusal
    }

    /// # Errors
    /// When the patch does not fit the object.
    pub fn apply(&self, call: &Call, target: &Target, current: &Value) -> Result<Patched, Refusal> {
        let object = match self {
            Self::Json(patch) => json::apply(patch, current)?,
            Self::Merge(patch) => {
                let mut object = current.clone();
                merge::apply(&mut object, patch);
                object
            }
            Self::Strategic(patch) => strategic::apply(&target.kind, current, patch)?,
            Self::Apply(config) => {
                return Ok(Patched { object: apply::apply(call, target, current, config)?, fields_are_managed: true });
            }
        };
        if !object["metadata"].is_object() {
            return Err(Refusal::new(422, "Invalid", "the patch leaves no metadata"));
        }
        Ok(Patched { object, fields_are_managed: false })
    }
}

/// As Go's `%v` prints what it has read from JSON.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
            format!("map[{}]", sorted.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect::<Vec<_>>().join(" "))
        }
        plain => plain.to_string(),
    }
}

/// Go's decoder has a word of its own for a text that ends too early.
fn json_body(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => Refusal::bad_request("unexpected end of JSON input"),
        _ => Refusal::bad_request(error.to_string()),
    })
}

fn object(patch: Value) -> Result<Value, Refusal> {
    if patch.is_object() { Ok(patch) } else { Err(Refusal::bad_request("the patch must be an object")) }
}

/// The object that a patch of something that does not exist makes: only server-side apply does so.
///
/// # Errors
/// As [`Patch::apply`].
pub(super) fn creation(call: &Call, target: &Target, patch: &Patch) -> Result<Option<Value>, Refusal> {
    match patch {
        Patch::Apply(config) if target.sub.is_none() => apply::create(call, target, config).map(Some),
        _ => Ok(None),
    }
}

/// A JSON or merge patch of something that is no stored object (Scale).
///
/// # Errors
/// 415 for other patches, otherwise as [`Patch::apply`].
pub(super) fn plain(call: &Call, current: &Value) -> Result<Value, Refusal> {
    match call.content_type() {
        "application/json-patch+json" => json::apply(&json::read(&call.body)?, current),
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            let mut object = current.clone();
            merge::apply(&mut object, &self::object(body::json(&call.body)?)?);
            Ok(object)
        }
        "application/apply-patch+yaml" => {
            let mut object = current.clone();
            merge::apply(&mut object, &self::object(body::yaml(&call.body)?)?);
            Ok(object)
        }
        _ => Err(Refusal::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json",
        )),
    }
}
