//! ConfigMaps, Secrets, bindings, definitions.

use serde_json::Value;

use super::super::kinds::Kind;
use super::super::status::FieldError;
use super::{Errors, immutable, is_absent, items, names, text};

/// A ConfigMap's or Secret's whole data (`MaxSecretSize`).
const DATA: usize = 1024 * 1024;

pub(super) fn data(kind: &Kind, next: &Value, old: Option<&Value>, errors: &mut Errors) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in next[field].as_object().into_iter().flatten() {
            names::config_key(key, field, errors);
            size += text(value).len();
        }
    }
    let is_secret = kind.is("", "secrets");
    if is_secret {
        size = size / 4 * 3;
    }
    if size > DATA {
        let (field, message) = (if is_secret { "data" } else { "" }, format!("Too long: may not be more than {DATA} bytes"));
        errors.push(FieldError { reason: "FieldValueTooLong", field: field.to_owned(), message });
    }
    if is_secret {
        let needed: &[&str] = match text(&next["type"]) {
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
            _ => &[],
        };
        for key in needed.iter().filter(|key| next["data"].get(**key).is_none()) {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
    let Some(old) = old else { return };
    if is_secret {
        immutable(&next["type"], &old["type"], "type", errors);
    }
    if old["immutable"] == true {
        if next["immutable"] != true {
            errors.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
        }
        for field in ["data", "binaryData"] {
            if next[field] != old[field] {
                errors.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
}

pub(super) fn ingress_class(next: &Value, old: Option<&Value>, errors: &mut Errors) {
    match old {
        None if text(&next["spec"]["controller"]).is_empty() => errors.push(FieldError::required("spec.controller", "")),
        None => {}
        Some(old) => immutable(&next["spec"]["controller"], &old["spec"]["controller"], "spec.controller", errors),
    }
}

pub(super) fn role_binding(next: &Value, old: Option<&Value>, errors: &mut Errors) {
    let role = &next["roleRef"];
    if !matches!(text(&role["kind"]), "Role" | "ClusterRole") {
        errors.push(FieldError::unsupported("roleRef.kind", &role["kind"], &["Role", "ClusterRole"]));
    }
    if text(&role["name"]).is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    if let Some(old) = old
        && old["roleRef"] != *role
    {
        errors.push(FieldError::invalid("roleRef", role, "cannot change roleRef"));
    }
}

pub(super) fn disruption_budget(next: &Value, errors: &mut Errors) {
    let spec = &next["spec"];
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        errors.push(FieldError::invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
    }
}

pub(super) fn autoscaler(next: &Value, errors: &mut Errors) {
    let spec = &next["spec"];
    for field in ["kind", "name"] {
        if text(&spec["scaleTargetRef"][field]).is_empty() {
            errors.push(FieldError::required(format!("spec.scaleTargetRef.{field}"), ""));
        }
    }
    let (least, most) = (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if most < 1 {
        errors.push(FieldError::invalid("spec.maxReplicas", &most.into(), "must be greater than 0"));
    } else if most < least {
        errors.push(FieldError::invalid("spec.maxReplicas", &most.into(), "must be greater than or equal to `minReplicas`"));
    }
}

pub(super) fn custom_resource_definition(next: &Value, errors: &mut Errors) {
    let (spec, name) = (&next["spec"], text(&next["metadata"]["name"]));
    let (plural, group) = (text(&spec["names"]["plural"]), text(&spec["group"]));
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    }
    for field in ["plural", "kind"] {
        if text(&spec["names"][field]).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{field}"), ""));
        }
    }
    if name != format!("{plural}.{group}") {
        errors.push(FieldError::invalid("metadata.name", &name.into(), "must be spec.names.plural+\".\"+spec.group"));
    }
    if !matches!(text(&spec["scope"]), "Cluster" | "Namespaced") {
        errors.push(FieldError::unsupported("spec.scope", &spec["scope"], &["Cluster", "Namespaced"]));
    }
    if is_absent(&spec["versions"]) {
        errors.push(FieldError::required("spec.versions", ""));
    }
    if items(&spec["versions"]).filter(|version| version["storage"] == true).count() != 1 {
        errors.push(FieldError::invalid(
            "spec.versions",
            &spec["versions"][0]["name"],
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in items(&spec["versions"]).enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            errors.push(FieldError::required(format!("spec.versions[{index}].schema.openAPIV3Schema"), "schemas are required"));
        }
    }
}
