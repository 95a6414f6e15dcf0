//! The eviction API: a deletion that PodDisruptionBudgets may refuse (`pkg/registry/core/pod/storage/eviction.go`).

use http::{Response, StatusCode};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::body;
use super::respond::{self, Body};
use super::route::Target;
use super::router::Call;
use super::status::Refusal;
use super::subresources::{selector_text, success};
use crate::store::{DeleteOptions, Resource};

/// Deletes a pod unless a PodDisruptionBudget forbids it now; what is allowed is taken off the budget at once, so that
/// many evictions at the same time cannot use it twice.
pub(super) fn evict(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let name = target.object_name()?;
    let eviction = body::parse(call)?;
    let store = &call.state.store;
    let pod = store.get(&target.kind.storage, target.namespace(), name).map_err(Refusal::from)?;
    let dry_run = call.dry_run()? || eviction["deleteOptions"]["dryRun"].as_array().is_some_and(|list| list.iter().any(|v| v == "All"));
    if !needs_no_budget(&pod) {
        take_from_budget(call, target, name, &pod, dry_run)?;
    }
    if !dry_run {
        // What `kubectl describe pod` shows of an eviction while the pod ends (KEP-3329).
        store.modify_or_try::<Refusal>(&target.kind.storage, target.namespace(), name, false, |pod| {
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting", "lastTransitionTime": now,
            });
            match pod["status"]["conditions"].as_array_mut() {
                Some(conditions) => {
                    conditions.retain(|c| c["type"] != "DisruptionTarget");
                    conditions.push(condition);
                }
                None => pod["status"]["conditions"] = json!([condition]),
            }
            Ok(())
        })?;
    }
    let options = DeleteOptions {
        grace_period_seconds: eviction["deleteOptions"]["gracePeriodSeconds"].as_i64(),
        uid: eviction["deleteOptions"]["preconditions"]["uid"].as_str().map(str::to_owned),
        ..DeleteOptions::default()
    };
    store.delete_or_try(&target.kind.storage, target.namespace(), name, &options, dry_run).map_err(Refusal::from)?;
    Ok(respond::json(StatusCode::CREATED, &success(201)))
}

/// `canIgnorePDB`.
fn needs_no_budget(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending")) || pod["metadata"]["deletionTimestamp"].is_string()
}

fn take_from_budget(call: &Call, target: &Target, name: &str, pod: &Value, dry_run: bool) -> Result<(), Refusal> {
    let store = &call.state.store;
    let resource = Resource::of::<PodDisruptionBudget>();
    let budgets = store.list(&resource, target.namespace());
    let selecting: Vec<&Value> = budgets.items.iter().map(|b| &**b).filter(|b| selects(&b["spec"]["selector"], pod)).collect();
    let budget = match selecting.as_slice() {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Refusal::new(500, "InternalError", message));
        }
    };
    let ready = pod["status"]["conditions"].as_array().is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    if !ready {
        // A pod that does not work may go when the working ones suffice, or always if the budget says so.
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always || number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0 {
            return Ok(());
        }
    }
    let budget_name = budget["metadata"]["name"].as_str().unwrap_or_default();
    store.modify_or_try(&resource, target.namespace(), budget_name, dry_run, |budget| {
        let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
        if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
            return Err(too_many(format!("The disruption budget {budget_name} is still being processed by the server.")));
        }
        let allowed = number("disruptionsAllowed");
        if allowed <= 0 {
            let (desired, current) = (number("desiredHealthy"), number("currentHealthy"));
            return Err(too_many(format!("The disruption budget {budget_name} needs {desired} healthy pods and has {current} currently")));
        }
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
        budget["status"]["disruptedPods"][name] = now.into();
        Ok(())
    })?;
    Ok(())
}

fn too_many(cause: String) -> Refusal {
    let mut refusal = Refusal::new(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    refusal.details = Some(json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]}));
    refusal
}

/// Whether a `metav1.LabelSelector` selects an object; one without any requirement selects all, none at all nothing.
fn selects(selector: &Value, object: &Value) -> bool {
    selector.is_object() && super::selector::LabelSelector::parse(&selector_text(selector)).is_ok_and(|selector| selector.matches(object))
}
