//! Whether objects have settled, told from the objects alone with the rules of `kubectl rollout status`.

use serde_json::Value;

/// Why a Deployment is not rolled out; `None` when it is.
pub fn deployment_pending(deployment: &Value) -> Option<String> {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let name = deployment.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?");
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return Some(format!("Deployment {name}: its latest change has not been taken up"));
    }
    let wanted = deployment.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let (updated, total, available) = (number("/status/updatedReplicas"), number("/status/replicas"), number("/status/availableReplicas"));
    if updated < wanted {
        return Some(format!("Deployment {name}: {updated} of {wanted} pods are of the new template"));
    }
    if total > updated {
        return Some(format!("Deployment {name}: {} old pods are still there", total - updated));
    }
    if available < updated {
        return Some(format!("Deployment {name}: {available} of {updated} pods are available"));
    }
    None
}

/// Condition Ready of a pod.
pub fn pod_ready(pod: &Value) -> bool {
    pod.pointer("/status/conditions")
        .and_then(Value::as_array)
        .is_some_and(|conditions| conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True"))
}

/// A deletion timestamp is set.
pub fn terminating(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|stamp| !stamp.is_null())
}

/// Why a bare pod is not ready; `None` when it is, has ended well, or belongs to something that replaces it.
pub fn pod_pending(pod: &Value) -> Option<String> {
    if pod.pointer("/metadata/ownerReferences/0").is_some() || pod_ready(pod) || pod["status"]["phase"] == "Succeeded" {
        return None;
    }
    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?");
    Some(format!("Pod {name} is {}", waiting_reason(pod).unwrap_or_else(|| "not ready".into())))
}

/// The first reason that a container gives for not running, such as `ErrImagePull`, with its message.
pub fn waiting_reason(pod: &Value) -> Option<String> {
    let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let waiting = statuses
        .iter()
        .filter_map(|pointer| pod.pointer(pointer)?.as_array())
        .flatten()
        .find_map(|status| status.pointer("/state/waiting").filter(|waiting| waiting["reason"].is_string()))?;
    let reason = waiting["reason"].as_str()?;
    match waiting["message"].as_str() {
        Some(message) if !message.is_empty() => Some(format!("{reason}: {message}")),
        _ => Some(reason.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(generation: i64, observed: i64, status: [i64; 3]) -> Value {
        json!({ "metadata": { "name": "shop", "generation": generation }, "spec": { "replicas": 2 },
            "status": { "observedGeneration": observed, "updatedReplicas": status[0], "replicas": status[1], "availableReplicas": status[2] } })
    }

    #[test]
    fn a_rollout_is_over_only_when_every_pod_is_new_and_available() {
        assert_eq!(deployment_pending(&deployment(2, 2, [2, 2, 2])), None);
        for pending in [(2, 1, [2, 2, 2]), (2, 2, [1, 2, 2]), (2, 2, [2, 3, 3]), (2, 2, [2, 2, 1])] {
            assert!(deployment_pending(&deployment(pending.0, pending.1, pending.2)).is_some(), "{pending:?}");
        }
    }

    #[test]
    fn the_reason_of_a_waiting_container_is_told() {
        let pod = json!({ "metadata": { "name": "a" }, "status": { "phase": "Pending", "containerStatuses": [
            { "state": { "waiting": { "reason": "ErrImagePull", "message": "no such image" } } }] } });
        assert_eq!(pod_pending(&pod).unwrap(), "Pod a is ErrImagePull: no such image");
    }
}
