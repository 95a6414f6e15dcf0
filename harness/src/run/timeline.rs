//! What a change of an object means for traffic: pods that come, become ready, end; addresses that enter or leave endpoints.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use crate::kubernetes::rollout::{pod_ready, terminating};
use crate::signature::{TimelineEvent, TimelineKind};

/// What happened between two versions of one object; `None` where there is no such version.
pub fn changes(key: &(String, String, String), before: Option<&Value>, after: Option<&Value>) -> Vec<TimelineEvent> {
    let at = Timestamp::now();
    match key.0.as_str() {
        "Pod" => pod_changes(before, after)
            .into_iter()
            .map(|kind| TimelineEvent { at, kind, object: format!("Pod/{}/{}", key.1, key.2) })
            .collect(),
        "EndpointSlice" => {
            let (was, is) = (ready_addresses(before), ready_addresses(after));
            let event = |kind, address: &String| TimelineEvent { at, kind, object: format!("EndpointSlice/{}/{} {address}", key.1, key.2) };
            let added = is.difference(&was).map(|address| event(TimelineKind::EndpointAdded, address));
            let removed = was.difference(&is).map(|address| event(TimelineKind::EndpointRemoved, address));
            added.chain(removed).collect()
        }
        _ => Vec::new(),
    }
}

fn pod_changes(before: Option<&Value>, after: Option<&Value>) -> Vec<TimelineKind> {
    let Some(after) = after else { return vec![TimelineKind::PodDeleted] };
    let mut kinds = Vec::new();
    if before.is_none() {
        kinds.push(TimelineKind::PodCreated);
    }
    let none = Value::Null;
    let before = before.unwrap_or(&none);
    let grew = |what: fn(&Value) -> usize| what(after) > what(before);
    if grew(containers_started) {
        kinds.push(TimelineKind::ContainerStarted);
    }
    match (pod_ready(before), pod_ready(after)) {
        (false, true) => kinds.push(TimelineKind::PodReady),
        (true, false) if !terminating(after) => kinds.push(TimelineKind::PodNotReady),
        _ => {}
    }
    if terminating(after) && !terminating(before) {
        kinds.push(TimelineKind::PodTerminating);
    }
    if grew(containers_ended) {
        kinds.push(TimelineKind::ContainerTerminated);
    }
    kinds
}

fn container_statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    ["/status/initContainerStatuses", "/status/containerStatuses"]
        .into_iter()
        .filter_map(|pointer| pod.pointer(pointer).and_then(Value::as_array))
        .flatten()
}

/// Starts so far: restarts count once each.
fn containers_started(pod: &Value) -> usize {
    container_statuses(pod)
        .map(|status| {
            let restarts = status["restartCount"].as_u64().unwrap_or(0) as usize;
            let begun = !status["state"]["running"].is_null() || !status["state"]["terminated"].is_null();
            restarts + usize::from(begun)
        })
        .sum()
}

fn containers_ended(pod: &Value) -> usize {
    container_statuses(pod)
        .map(|status| status["restartCount"].as_u64().unwrap_or(0) as usize + usize::from(!status["state"]["terminated"].is_null()))
        .sum()
}

/// Addresses that take new connections: an endpoint without a `ready` condition counts as ready (EndpointConditions).
fn ready_addresses(slice: Option<&Value>) -> BTreeSet<String> {
    let endpoints = slice.and_then(|slice| slice["endpoints"].as_array());
    endpoints
        .into_iter()
        .flatten()
        .filter(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap_or(true))
        .filter_map(|endpoint| endpoint["addresses"].as_array())
        .flatten()
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(kind: &str) -> (String, String, String) {
        (kind.into(), "shop".into(), "a".into())
    }

    fn kinds(before: Option<Value>, after: Option<Value>) -> Vec<TimelineKind> {
        changes(&key("Pod"), before.as_ref(), after.as_ref()).into_iter().map(|event| event.kind).collect()
    }

    #[test]
    fn a_pod_is_followed_through_its_life() {
        let created = json!({ "metadata": {} });
        let running = json!({ "metadata": {}, "status": {
            "containerStatuses": [{ "restartCount": 0, "state": { "running": {} } }],
            "conditions": [{ "type": "Ready", "status": "True" }] } });
        let mut ending = running.clone();
        ending["metadata"]["deletionTimestamp"] = "2026-11-21T04:00:00Z".into();
        ending["status"]["conditions"][0]["status"] = "False".into();
        let mut ended = ending.clone();
        ended["status"]["containerStatuses"][0]["state"] = json!({ "terminated": {} });
        assert_eq!(kinds(None, Some(created.clone())), [TimelineKind::PodCreated]);
        assert_eq!(kinds(Some(created), Some(running.clone())), [TimelineKind::ContainerStarted, TimelineKind::PodReady]);
        assert_eq!(kinds(Some(running), Some(ending.clone())), [TimelineKind::PodTerminating]);
        assert_eq!(kinds(Some(ending), Some(ended.clone())), [TimelineKind::ContainerTerminated]);
        assert_eq!(kinds(Some(ended), None), [TimelineKind::PodDeleted]);
    }

    #[test]
    fn endpoints_enter_and_leave_by_readiness() {
        let slice = |ready: bool| json!({ "endpoints": [{ "addresses": ["10.244.0.3"], "conditions": { "ready": ready } }] });
        let event = |before: Value, after: Value| changes(&key("EndpointSlice"), Some(&before), Some(&after));
        assert_eq!(event(slice(false), slice(true))[0].kind, TimelineKind::EndpointAdded);
        assert_eq!(event(slice(true), slice(false))[0].kind, TimelineKind::EndpointRemoved);
        assert!(event(slice(true), slice(true)).is_empty());
    }
}
