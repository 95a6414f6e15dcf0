//! Namespaces, Secrets and kinds that are stored without a controller.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::quantities::canonicalize;
use super::{items, present, set, set_text};

/// The finalizer is the namespace controller's: it empties the namespace before it lets it go.
pub(super) fn namespace(namespace: &mut Value) {
    if namespace["metadata"]["deletionTimestamp"].is_null() {
        set(&mut namespace["spec"], "finalizers", || json!(["kubernetes"]));
    }
    set_text(&mut namespace["status"], "phase", "Active");
    if let Some(name) = namespace["metadata"]["name"].as_str().map(str::to_owned) {
        set(&mut namespace["metadata"]["labels"], "kubernetes.io/metadata.name", || name.into());
    }
}

/// `stringData` is for writing only.
pub(super) fn secret(secret: &mut Value) {
    set_text(secret, "type", "Opaque");
    let plain = secret.as_object_mut().and_then(|map| map.remove("stringData"));
    for (name, value) in plain.as_ref().and_then(Value::as_object).into_iter().flatten() {
        if secret["data"].is_null() {
            secret["data"] = json!({});
        }
        if let (Some(data), Some(text)) = (secret["data"].as_object_mut(), value.as_str()) {
            data.insert(name.clone(), STANDARD.encode(text).into());
        }
    }
}

pub(super) fn claim(claim: &mut Value) {
    if let Some(spec) = present(claim, "spec") {
        set_text(spec, "volumeMode", "Filesystem");
    }
    // Admission plugin StorageObjectInUseProtection; the controller of claims takes it off again.
    if claim["metadata"]["deletionTimestamp"].is_null() {
        set(&mut claim["metadata"], "finalizers", || json!(["kubernetes.io/pvc-protection"]));
    }
    set_text(&mut claim["status"], "phase", "Pending");
}

pub(super) fn role_binding(binding: &mut Value) {
    if let Some(role) = present(binding, "roleRef") {
        set_text(role, "apiGroup", "rbac.authorization.k8s.io");
    }
    for subject in items(binding, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set_text(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}

pub(super) fn storage_class(class: &mut Value) {
    set_text(class, "reclaimPolicy", "Delete");
    set_text(class, "volumeBindingMode", "Immediate");
}

/// Served as soon as stored, hence established at once.
pub(super) fn custom_resource_definition(definition: &mut Value) {
    let Some(spec) = present(definition, "spec") else { return };
    set(spec, "conversion", || json!({"strategy": "None"}));
    let Some(names) = present(spec, "names") else { return };
    if let Some(kind) = names["kind"].as_str().map(str::to_owned) {
        set_text(names, "singular", &kind.to_lowercase());
        set_text(names, "listKind", &format!("{kind}List"));
    }
    let names = names.clone();
    let stored: Vec<Value> =
        spec["versions"].as_array().into_iter().flatten().filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = &mut definition["status"];
    set(status, "storedVersions", || stored.into());
    status["acceptedNames"] = names;
    set(status, "conditions", || {
        json!([
            {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found", "lastTransitionTime": now},
            {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "the initial names have been accepted", "lastTransitionTime": now},
        ])
    });
}

/// `SetDefaults_LimitRangeItem`: the default limit is the maximum, the default request the default limit or else the minimum.
pub(super) fn limit_range(range: &mut Value) {
    let Some(spec) = present(range, "spec") else { return };
    for limit in items(spec, "limits") {
        for field in ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"] {
            canonicalize(limit, field);
        }
        if limit["type"] != "Container" {
            continue;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            for (name, amount) in limit[from].as_object().cloned().into_iter().flatten() {
                set(&mut limit[to], &name, || amount);
            }
        }
    }
}
