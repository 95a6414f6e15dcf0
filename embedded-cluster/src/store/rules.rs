//! What the store does to metadata by itself, as the registry layer of kube-apiserver: generations, finalizers, grace
//! periods, fields that no client may change.

use serde_json::Value;

use super::Resource;
use super::objects::{Fault, Reason};
use super::shard::ResourceKey;

pub(super) fn is_core(resource: &Resource, plural: &str) -> bool {
    resource.group.is_empty() && resource.plural == plural
}

pub(super) fn is_pod(resource: &Resource) -> bool {
    is_core(resource, "pods")
}

pub(super) fn is_service(resource: &Resource) -> bool {
    is_core(resource, "services")
}

pub(super) fn is_claim(resource: &Resource) -> bool {
    is_core(resource, "persistentvolumeclaims")
}

pub(super) fn is_quota(resource: &Resource) -> bool {
    is_core(resource, "resourcequotas")
}

pub(super) fn is_namespace(resource: &Resource) -> bool {
    is_core(resource, "namespaces")
}

/// kube-apiserver counts generations only for kinds whose strategy says so; none of the core kinds served here.
pub(super) fn has_generation(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" | "events.k8s.io" | "coordination.k8s.io" | "rbac.authorization.k8s.io" | "storage.k8s.io" => {
            resource.plural == "replicationcontrollers"
        }
        "apps" => resource.plural != "controllerrevisions",
        "autoscaling" => false,
        _ => true,
    }
}

/// Whether a change is one that a controller has to act upon. Slices have no spec; all they say is one.
pub(super) fn is_respecified(resource: &Resource, before: &Value, after: &Value) -> bool {
    let fields: &[&str] = if resource.plural == "endpointslices" { &["endpoints", "ports"] } else { &["spec"] };
    fields.iter().any(|field| before.get(field) != after.get(field))
}

/// Fields of which Go's JSON of a kind differs from what k8s-openapi's types write: some are there even when they are not set,
/// empty lists and maps of metadata never are.
pub(super) fn as_go_writes_it(resource: &Resource, object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|_, value| match value {
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        });
    }
    let add_null = |object: &mut Value, field: &str| {
        if let Some(map) = object.as_object_mut()
            && !map.contains_key(field)
        {
            map.insert(field.to_owned(), Value::Null);
        }
    };
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => {
            let conditions = object.get_mut("status").and_then(|status| status.get_mut("conditions")).and_then(Value::as_array_mut);
            for condition in conditions.into_iter().flatten() {
                add_null(condition, "lastProbeTime");
            }
        }
        ("", "events") => {
            for field in ["eventTime", "firstTimestamp", "lastTimestamp"] {
                add_null(object, field);
            }
            if object["source"].is_null() {
                object["source"] = serde_json::json!({});
            }
        }
        _ => {}
    }
}

/// The grace period that a pod's deletion gets: the request's or the pod's own; none for a pod that no node runs.
pub(super) fn pod_grace(pod: &Value, requested: Option<i64>) -> i64 {
    let bound = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !bound || ended {
        return 0;
    }
    // A negative grace period means one second (metav1.DeleteOptions).
    let own = || pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    match requested.unwrap_or_else(own) {
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}

pub(crate) fn keep_system_metadata(current: &Value, next: &mut Value) {
    for kept in ["uid", "creationTimestamp", "name", "namespace", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        match current["metadata"].get(kept) {
            Some(value) => next["metadata"][kept] = value.clone(),
            None => {
                if let Some(metadata) = next["metadata"].as_object_mut() {
                    metadata.remove(kept);
                }
            }
        }
    }
}

/// The garbage collector sees by these finalizers what to do with dependents (`metav1.FinalizerDeleteDependents`,
/// `metav1.FinalizerOrphanDependents`).
pub(super) fn set_propagation_finalizers(object: &mut Value, policy: Option<&str>) {
    let wanted = match policy {
        Some("Foreground") => "foregroundDeletion",
        Some("Orphan") => "orphan",
        _ => return,
    };
    let list = &mut object["metadata"]["finalizers"];
    match list.as_array_mut() {
        Some(list) if list.iter().any(|f| f == wanted) => {}
        Some(list) => list.push(wanted.into()),
        None => *list = serde_json::json!([wanted]),
    }
}

pub(super) fn conflict(resource: &Resource, name: &str) -> Fault {
    Fault::new(
        Reason::Conflict,
        format!(
            "Operation cannot be fulfilled on {}{} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
            resource.plural,
            group_suffix(resource)
        ),
    )
}

pub(super) fn resource_key(resource: &Resource) -> ResourceKey {
    (resource.group.clone(), resource.plural.clone())
}

pub(super) fn group_suffix(resource: &Resource) -> String {
    if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) }
}

pub(super) fn not_found(resource: &Resource, name: &str) -> Fault {
    Fault::new(Reason::NotFound, format!("{}{} \"{name}\" not found", resource.plural, group_suffix(resource)))
}

pub(super) fn metadata_str(object: &Value, field: &str) -> Option<String> {
    object["metadata"][field].as_str().filter(|s| !s.is_empty()).map(str::to_owned)
}

pub(super) fn is_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Whether finalizers keep a deleted object. Namespaces have theirs in `spec` too (`kubernetes`, until emptied).
pub(super) fn is_held(resource: &Resource, object: &Value) -> bool {
    let any = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    any(&object["metadata"]["finalizers"]) || is_namespace(resource) && any(&object["spec"]["finalizers"])
}

pub(super) fn grace_period(object: &Value) -> i64 {
    object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0)
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub(super) fn now() -> String {
    after(0)
}

pub(super) fn after(seconds: i64) -> String {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
