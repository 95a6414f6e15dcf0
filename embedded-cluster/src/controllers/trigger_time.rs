//! When the change happened that a Service's endpoints were last written for, as `staging/src/k8s.io/endpointslice/trigger_time_tracker.go`
//! of Kubernetes finds it: how long programming the network takes is measured from there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};

use super::objects::Key;
use super::pods::key;

/// `EndpointsLastChangeTriggerTime`.
const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Of a pod: since when it is, or is not, ready.
type Readiness = (Timestamp, bool);

#[derive(Default)]
pub(super) struct TriggerTimes(Mutex<BTreeMap<Key, BTreeMap<String, Readiness>>>);

impl TriggerTimes {
    /// To be asked at each look at a Service, even if nothing is written after it: the earliest change since the look before; the
    /// Service's own creation at the first.
    pub(super) fn since_last_look(&self, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let now: BTreeMap<String, Readiness> = pods.iter().filter_map(|pod| Some((pod.metadata.name.clone()?, readiness(pod)?))).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = known.insert(key(service), now.clone()) else {
            return service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        };
        // Kubernetes compares the times alone. They are of whole seconds, and within one a lab's pods become ready.
        let changed =
            now.iter().filter(|(pod, (since, ready))| before.get(*pod).is_none_or(|(s, r)| since > s || since == s && ready != r));
        changed.map(|(_, (since, _))| *since).min()
    }

    pub(super) fn forget(&self, service: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
    }
}

fn readiness(pod: &Pod) -> Option<Readiness> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let ready = conditions.find(|condition| condition.type_ == "Ready")?;
    Some((ready.last_transition_time.as_ref()?.0, ready.status == "True"))
}

/// Without a change that is known the annotation goes.
pub(super) fn annotate(annotations: &mut Option<BTreeMap<String, String>>, triggered: Option<Timestamp>) {
    match triggered {
        Some(time) => drop(annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), time.to_string())),
        None => {
            if let Some(annotations) = annotations {
                annotations.remove(ANNOTATION);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, since: &str, ready: &str) -> Arc<Pod> {
        let condition = json!({"type": "Ready", "status": ready, "lastTransitionTime": since});
        let pod = json!({"metadata": {"name": name}, "status": {"conditions": [condition]}});
        Arc::new(serde_json::from_value(pod).expect("a Pod"))
    }

    #[test]
    fn the_earliest_change_since_the_last_look() {
        let metadata = json!({"name": "shop", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let service: Service = serde_json::from_value(json!({"metadata": metadata})).expect("a Service");
        let times = TriggerTimes::default();
        let look = |pods: &[Arc<Pod>]| times.since_last_look(&service, pods).map(|time| time.to_string());
        let (a, b) = (pod("a", "2026-01-01T00:00:03Z", "False"), pod("b", "2026-01-01T00:00:05Z", "True"));
        assert_eq!(look(&[]).as_deref(), Some("2026-01-01T00:00:00Z"), "a Service that is new");
        assert_eq!(look(&[a.clone(), b.clone()]).as_deref(), Some("2026-01-01T00:00:03Z"));
        assert_eq!(look(&[a, b.clone()]), None, "nothing changed");
        let a = pod("a", "2026-01-01T00:00:03Z", "True");
        assert_eq!(look(&[a, b.clone()]).as_deref(), Some("2026-01-01T00:00:03Z"), "ready within the second");
        assert_eq!(look(&[b]), None, "a pod that went leaves no time");
        times.forget(&("shop".to_owned(), "shop".to_owned()));
        assert_eq!(look(&[]).as_deref(), Some("2026-01-01T00:00:00Z"));
    }

    #[test]
    fn an_unknown_change_clears_the_annotation() {
        let mut annotations = Some([("note".to_owned(), "kept".to_owned())].into());
        annotate(&mut annotations, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(annotations.as_ref().and_then(|a| a.get(ANNOTATION)).map(String::as_str), Some("1970-01-01T00:00:00Z"));
        annotate(&mut annotations, None);
        assert_eq!(annotations, Some([("note".to_owned(), "kept".to_owned())].into()));
    }
}
