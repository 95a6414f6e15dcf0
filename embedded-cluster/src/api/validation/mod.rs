//! Checks that kube-apiserver makes before it stores an object, in its words; all mistakes are told at once.

mod names;
mod network;
mod others;
mod pods;
mod workloads;

use serde_json::Value;

use super::kinds::Kind;
use super::status::{FieldError, Refusal};

type Errors = Vec<FieldError>;

/// Puts what the client should know though it is no mistake into `warnings`, and takes out what was there: a write may be
/// tried more than once.
///
/// # Errors
/// 422 with a cause for each mistake.
pub(super) fn check(kind: &Kind, next: &Value, old: Option<&Value>, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    warnings.clear();
    let mut errors = Errors::new();
    names::metadata(kind, next, old, &mut errors);
    if let Some(old) = old
        && is_deleted(old)
    {
        finalizers(old, next, &mut errors);
    }
    // A status is its controller's own affair.
    let spec_changed = old.is_none_or(|old| old.get("spec") != next.get("spec") || next.get("spec").is_none());
    if spec_changed {
        match (kind.resource.group.as_str(), kind.resource.plural.as_str()) {
            ("", "pods") => pods::pod(next, old, &mut errors),
            ("", "services") => network::service(next, old, &mut errors),
            ("", "configmaps" | "secrets") => others::data(kind, next, old, &mut errors),
            ("", "endpoints") => network::endpoints(next, &mut errors),
            ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets") => workloads::workload(kind, next, old, &mut errors),
            ("batch", "jobs") => workloads::job(next, old, &mut errors),
            ("batch", "cronjobs") => workloads::cron_job(next, &mut errors),
            ("discovery.k8s.io", "endpointslices") => network::endpoint_slice(next, old, &mut errors),
            ("networking.k8s.io", "ingresses") => network::ingress(next, &mut errors),
            ("networking.k8s.io", "ingressclasses") => others::ingress_class(next, old, &mut errors),
            ("networking.k8s.io", "networkpolicies") => network::network_policy(next, &mut errors),
            ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => others::role_binding(next, old, &mut errors),
            ("policy", "poddisruptionbudgets") => others::disruption_budget(next, &mut errors),
            ("autoscaling", "horizontalpodautoscalers") => others::autoscaler(next, &mut errors),
            ("apiextensions.k8s.io", "customresourcedefinitions") => {
                others::custom_resource_definition(next, &mut errors);
                let (mistakes, warned) = super::custom::definition_mistakes(next);
                errors.extend(mistakes);
                warnings.extend(warned);
            }
            _ => {}
        }
    }
    if kind.custom.is_some() {
        errors.extend(super::custom::mistakes(kind, next, old, warnings));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(kind, next["metadata"]["name"].as_str().unwrap_or_default(), &errors))
}

fn is_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn finalizers(old: &Value, next: &Value, errors: &mut Errors) {
    let had: Vec<&Value> = items(&old["metadata"]["finalizers"]).collect();
    let added: Vec<String> =
        items(&next["metadata"]["finalizers"]).filter(|f| !had.contains(f)).filter_map(Value::as_str).map(str::to_owned).collect();
    if !added.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{\"{}\"}}",
            added.join("\", \"")
        );
        errors.push(FieldError::forbidden("metadata.finalizers", &detail));
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// A text that must be one of a few.
fn one_of(value: &Value, field: String, supported: &[&str], errors: &mut Errors) {
    if is_absent(value) {
        errors.push(FieldError::required(field, ""));
    } else if !supported.contains(&text(value)) {
        errors.push(FieldError::unsupported(field, value, supported));
    }
}

fn not_negative(value: &Value, field: &str, errors: &mut Errors) {
    if value.as_i64().is_some_and(|n| n < 0) {
        errors.push(FieldError::invalid(field, value, "must be greater than or equal to 0"));
    }
}

fn port_number(value: &Value, field: String, errors: &mut Errors) {
    if !value.as_i64().is_some_and(|port| (1..=65535).contains(&port)) {
        errors.push(FieldError::invalid(field, value, "must be between 1 and 65535, inclusive"));
    }
}

/// A port by number or name, where both are allowed.
fn port_or_name(value: &Value, field: String, errors: &mut Errors) {
    match value {
        Value::String(name) => names::port_name(name, field, errors),
        number => port_number(number, field, errors),
    }
}

fn immutable(next: &Value, old: &Value, field: &str, errors: &mut Errors) {
    if next != old {
        errors.push(FieldError::invalid(field, next, "field is immutable"));
    }
}
