//! Refusals in Kubernetes' own form: `metav1.Status` with reason, code, details and causes.

use serde_json::{Value, json};

use super::kinds::Kind;
use crate::store::{Fault, Reason};

/// One mistake in one field, as `field.Error` of apimachinery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// `FieldValueRequired`, `FieldValueInvalid`…: the `reason` of a cause.
    pub reason: &'static str,
    /// `spec.ports[0].port`
    pub field: String,
    /// Without the field: `Required value: …`.
    pub message: String,
}

impl FieldError {
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self { reason: "FieldValueInvalid", field: field.into(), message: format!("Invalid value: {}: {detail}", go_value(value)) }
    }

    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", go_value(value), list.join(", "));
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }

    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self { reason: "FieldValueDuplicate", field: field.into(), message: format!("Duplicate value: {}", go_value(value)) }
    }

    pub fn too_long(field: impl Into<String>, most: u64) -> Self {
        Self { reason: "FieldValueTooLong", field: field.into(), message: format!("Too long: may not be more than {most} bytes") }
    }

    pub fn too_many(field: impl Into<String>, count: u64, most: u64) -> Self {
        let items = if most == 1 { "item" } else { "items" };
        Self { reason: "FieldValueTooMany", field: field.into(), message: format!("Too many: {count}: must have at most {most} {items}") }
    }

    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self { reason: "FieldValueNotFound", field: field.into(), message: format!("Not found: {}", go_value(value)) }
    }

    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {detail}") }
    }
}

/// Strings quoted, objects and lists as JSON: close to Go's rendering without its type names.
fn go_value(value: &Value) -> String {
    value.to_string()
}

/// A refused request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub code: u16,
    /// `metav1.StatusReason`; empty for none.
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Value>,
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// A path that nothing serves. kube-apiserver answers in plain text, as Go's `http.NotFound` does; clients make "the server
    /// could not find the requested resource (get pods.example.test)" of it themselves.
    pub fn no_such_resource() -> Self {
        Self::new(404, "", "404 page not found")
    }

    pub fn is_no_such_resource(&self) -> bool {
        self.code == 404 && self.reason.is_empty()
    }

    pub fn method_not_allowed() -> Self {
        Self {
            details: Some(json!({})),
            ..Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        }
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn unsupported_media_type(supported: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format - accepted media types include: {supported}"),
        )
    }

    pub fn not_acceptable() -> Self {
        Self::new(406, "NotAcceptable", "only the following media types are accepted: application/json, application/yaml")
    }

    pub fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified_plural());
        Self::new(404, "NotFound", message).about(kind, Some(name))
    }

    /// 422 with a cause for each mistake.
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        let each: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        let all = if each.len() == 1 { each.concat() } else { format!("[{}]", each.join(", ")) };
        let causes: Vec<Value> = errors.iter().map(|e| json!({"reason": e.reason, "message": e.message, "field": e.field})).collect();
        let message = format!("{} \"{name}\" is invalid: {all}", kind.qualified_kind());
        let mut details = json!({"name": name, "group": kind.resource.group, "kind": kind.resource.kind, "causes": causes});
        drop_empty(&mut details);
        Self { details: Some(details), ..Self::new(422, "Invalid", message) }
    }

    /// Names the object in `details` unless they are there already.
    pub fn about(mut self, kind: &Kind, name: Option<&str>) -> Self {
        if self.details.is_none() {
            let mut details = json!({"name": name.unwrap_or_default(), "group": kind.resource.group, "kind": kind.resource.plural});
            drop_empty(&mut details);
            self.details = Some(details);
        }
        self
    }

    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status["code"] = self.code.into();
        status
    }
}

fn drop_empty(details: &mut Value) {
    if let Some(map) = details.as_object_mut() {
        map.retain(|_, v| v != "");
    }
}

/// `Service "shop" is invalid: spec.clusterIPs: Invalid value: …` taken apart: clients show the causes.
fn invalid_details(message: &str) -> Option<Value> {
    let (object, mistake) = message.split_once(" is invalid: ")?;
    let (kind, name) = object.split_once(' ')?;
    let (field, message) = mistake.split_once(": ")?;
    let cause = json!({"reason": "FieldValueInvalid", "message": message, "field": field});
    Some(json!({"name": name.trim_matches('"'), "kind": kind, "causes": [cause]}))
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let (code, reason) = match fault.reason {
            Reason::NotFound => (404, "NotFound"),
            Reason::AlreadyExists => (409, "AlreadyExists"),
            Reason::Conflict => (409, "Conflict"),
            Reason::Invalid => (422, "Invalid"),
            Reason::Expired => (410, "Expired"),
            Reason::BadRequest => (400, "BadRequest"),
            Reason::Forbidden => (403, "Forbidden"),
        };
        let details = (code == 422).then(|| invalid_details(&fault.message)).flatten();
        Self { details, ..Self::new(code, reason, fault.message) }
    }
}
