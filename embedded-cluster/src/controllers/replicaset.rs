//! ReplicaSets: as many pods as asked for, taken over, let go and chosen for deletion as kube-controller-manager does.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::claim;
use super::events::{Recorder, reference};
use super::objects::{Key, Objects};
use super::pods::{availability, generated_name, is_active, is_ready, key, phase};
use super::reconcile::{Outcome, Trigger, drive};
use super::selectors;
use crate::store::{DeleteOptions, Store};

/// Runs for ever.
pub(super) async fn run(store: Store, pods: Objects<Pod>) {
    let sets: Objects<ReplicaSet> = Objects::new(&store);
    let triggers = vec![
        Trigger::itself(sets.resource()),
        Trigger::controller_of(pods.resource(), "ReplicaSet"),
        claim::orphans::<ReplicaSet>(&store, &pods),
    ];
    let controller = Controller { recorder: Recorder::new(&store, "replicaset-controller", None), sets, pods };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    sets: Objects<ReplicaSet>,
    pods: Objects<Pod>,
    recorder: Recorder,
}

impl Controller {
    fn reconcile(&self, key: &Key) -> Outcome {
        let Some(set) = self.sets.get(&key.0, &key.1) else { return Outcome::Done };
        let Some(spec) = &set.spec else { return Outcome::Done };
        let mut active = claim::claim(&self.pods, &*set, &spec.selector, is_active);
        if set.metadata.deletion_timestamp.is_none() {
            self.scale(&set, spec, &mut active);
        }
        self.report(&set, spec, &active)
    }

    fn scale(&self, set: &ReplicaSet, spec: &ReplicaSetSpec, active: &mut Vec<Arc<Pod>>) {
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let about = reference(set);
        while active.len() < wanted {
            match self.pods.create(namespace, &new_pod(set, spec)) {
                Ok(pod) => {
                    let name = pod.metadata.name.as_deref().unwrap_or_default();
                    self.recorder.normal(&about, "SuccessfulCreate", format!("Created pod: {name}"));
                    active.push(pod);
                }
                Err(fault) => {
                    self.recorder.warning(&about, "FailedCreate", format!("Error creating: {fault}"));
                    return;
                }
            }
        }
        if active.len() > wanted {
            let mut per_node: BTreeMap<String, usize> = BTreeMap::new();
            for pod in &*active {
                *per_node.entry(node_of(pod)).or_default() += 1;
            }
            active.sort_by(|a, b| deletion_order(a, b, &per_node));
            for pod in active.drain(..active.len() - wanted) {
                let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
                match self.pods.delete(&key(&*pod), &options) {
                    Ok(()) => {
                        let name = pod.metadata.name.as_deref().unwrap_or_default();
                        self.recorder.normal(&about, "SuccessfulDelete", format!("Deleted pod: {name}"));
                    }
                    Err(fault) => tracing::debug!(%fault, "pod went away meanwhile"),
                }
            }
        }
    }

    fn report(&self, set: &ReplicaSet, spec: &ReplicaSetSpec, active: &[Arc<Pod>]) -> Outcome {
        let min_ready = Duration::from_secs(u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0));
        let template_labels = spec.template.as_ref().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone()).unwrap_or_default();
        let now = Timestamp::now();
        let (mut ready, mut available, mut labelled) = (0, 0, 0);
        let mut next: Option<Duration> = None;
        for pod in active {
            labelled += i32::from(selectors::matches_map(&template_labels, pod.metadata.labels.as_ref()));
            ready += i32::from(is_ready(pod));
            match availability(pod, min_ready, now) {
                Ok(()) => available += 1,
                Err(Some(left)) => next = Some(next.map_or(left, |n| n.min(left))),
                Err(None) => {}
            }
        }
        let status = ReplicaSetStatus {
            replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
            fully_labeled_replicas: Some(labelled).filter(|n| *n > 0),
            ready_replicas: Some(ready).filter(|n| *n > 0),
            available_replicas: Some(available).filter(|n| *n > 0),
            observed_generation: set.metadata.generation,
            conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
            ..ReplicaSetStatus::default()
        };
        if set.status.as_ref() != Some(&status) {
            let _ = self.sets.modify(&key(set), |set| set.status = Some(status));
        }
        next.map_or(Outcome::Done, Outcome::Again)
    }
}

fn new_pod(set: &ReplicaSet, spec: &ReplicaSetSpec) -> Pod {
    let mut pod = claim::pod_of(set, &spec.template.clone().unwrap_or_default());
    let prefix = format!("{}-", set.metadata.name.as_deref().unwrap_or_default());
    pod.metadata.name = Some(generated_name(&prefix));
    pod.metadata.generate_name = Some(prefix);
    pod
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default()
}

/// `ActivePodsWithRanks`: those first that are missed least.
fn deletion_order(a: &Pod, b: &Pod, per_node: &BTreeMap<String, usize>) -> Ordering {
    let phase_rank = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |pod: &Pod| -> i32 {
        let annotation = pod.metadata.annotations.as_ref().and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
        annotation.and_then(|cost| cost.parse().ok()).unwrap_or(0)
    };
    let restarts = |pod: &Pod| -> i32 {
        let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
        statuses.into_iter().flatten().map(|s| s.restart_count).max().unwrap_or(0)
    };
    let ready_since = |pod: &Pod| super::pods::condition(pod, "Ready").and_then(|c| c.last_transition_time.clone());
    let rank = |pod: &Pod| per_node.get(&node_of(pod)).copied().unwrap_or(0);
    let assigned = |pod: &Pod| !node_of(pod).is_empty();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank(b).cmp(&rank(a)))
        .then_with(|| if is_ready(a) && is_ready(b) { ready_since(b).cmp(&ready_since(a)) } else { Ordering::Equal })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| b.metadata.creation_timestamp.cmp(&a.metadata.creation_timestamp))
}
