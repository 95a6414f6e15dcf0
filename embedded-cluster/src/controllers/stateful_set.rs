//! StatefulSets: pods with stable names, made, replaced and removed in the order of their numbers
//! (`stateful_set_control.go`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};

use super::claim;
use super::events::{Recorder, reference};
use super::objects::{Key, Objects};
use super::pods::{availability, is_finished, is_ready, is_terminating, key, phase};
use super::reconcile::{Outcome, Trigger, drive};
use super::revisions::{History, REVISION_LABEL, RevisionLabels, Revisions, template_of};
use super::stateful_pods::{claims_of, new_pod, ordinal_of};
use crate::store::{DeleteOptions, Reason, Store};

/// Runs for ever.
pub(super) async fn run(store: Store, pods: Objects<Pod>) {
    let sets: Objects<StatefulSet> = Objects::new(&store);
    let triggers = vec![
        Trigger::itself(sets.resource()),
        Trigger::controller_of(pods.resource(), "StatefulSet"),
        claim::orphans::<StatefulSet>(&store, &pods),
    ];
    let controller = Controller {
        recorder: Recorder::new(&store, "statefulset-controller", None),
        revisions: Revisions::new(&store),
        volume_claims: Objects::new(&store),
        sets,
        pods,
    };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    sets: Objects<StatefulSet>,
    pods: Objects<Pod>,
    volume_claims: Objects<PersistentVolumeClaim>,
    revisions: Revisions,
    recorder: Recorder,
}

/// The names of the two revisions of which pods may be at work, and the template of the older one.
struct Versions {
    current: String,
    update: String,
    current_template: PodTemplateSpec,
}

type ByOrdinal = BTreeMap<i32, Arc<Pod>>;

impl Controller {
    fn reconcile(&self, set_key: &Key) -> Outcome {
        let Some(set) = self.sets.get(&set_key.0, &set_key.1) else { return Outcome::Done };
        let Some(spec) = &set.spec else { return Outcome::Done };
        let name = set_key.1.as_str();
        let pods = claim::claim(&self.pods, &*set, &spec.selector, |pod| ordinal_of(name, pod).is_some());
        if set.metadata.deletion_timestamp.is_some() {
            return Outcome::Done;
        }
        let history = match self.revisions.sync(&*set, &spec.template, RevisionLabels::StatefulSet) {
            Ok(history) => history,
            Err(fault) => {
                tracing::warn!(%fault, set = name, "the revisions of a StatefulSet could not be written");
                return Outcome::Again(Duration::from_secs(1));
            }
        };
        let versions = versions(&set, spec, &history);
        let by_ordinal: ByOrdinal = pods.into_iter().filter_map(|pod| Some((ordinal_of(name, &pod)?, pod))).collect();
        self.step(&set, spec, &versions, by_ordinal);
        // As the pods are after the step.
        let now: Vec<_> = claim::claim(&self.pods, &*set, &spec.selector, |pod| ordinal_of(name, pod).is_some()).into_iter().collect();
        let outcome = self.report(&set, spec, &versions, &now);
        self.revisions.truncate(&history, spec.revision_history_limit, |revision| {
            let revision = revision.metadata.name.as_deref().unwrap_or_default();
            revision == versions.current || now.iter().any(|pod| revision_of(pod) == revision)
        });
        outcome
    }

    /// One step towards what is asked: with ordered pods that is at most one pod made or removed.
    fn step(&self, set: &StatefulSet, spec: &StatefulSetSpec, versions: &Versions, mut pods: ByOrdinal) {
        let min_ready = min_ready(spec);
        let healthy = |pod: &Pod| !is_terminating(pod) && phase(pod) == "Running" && availability(pod, min_ready, Timestamp::now()).is_ok();
        let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
        let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
        let end = start + spec.replicas.unwrap_or(1);
        for ordinal in start..end {
            match pods.get(&ordinal) {
                Some(pod) if is_finished(pod) => {
                    self.replace_finished(set, pod);
                    if ordered {
                        return;
                    }
                }
                Some(pod) => {
                    if phase(pod) == "Pending" {
                        // A claim that someone deleted is made again.
                        self.make_claims(set, spec, ordinal);
                    }
                    if ordered && !healthy(pod) {
                        return;
                    }
                }
                None => {
                    let Some(pod) = self.create(set, spec, versions, ordinal, start) else { return };
                    pods.insert(ordinal, pod);
                    if ordered {
                        return;
                    }
                }
            }
        }
        let condemned: Vec<(i32, Arc<Pod>)> =
            pods.iter().rev().filter(|(ordinal, _)| !(start..end).contains(ordinal)).map(|(o, pod)| (*o, pod.clone())).collect();
        let first_unhealthy = pods.values().find(|pod| !healthy(pod)).map(|pod| pod.metadata.uid.clone());
        for (_, pod) in &condemned {
            if is_terminating(pod) {
                if ordered {
                    return;
                }
                continue;
            }
            if ordered && !healthy(pod) && first_unhealthy.as_ref() != Some(&pod.metadata.uid) {
                return;
            }
            self.delete(set, pod);
            if ordered {
                return;
            }
        }
        if spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        // The highest number is replaced first, and the next only when it is back.
        for ordinal in (start + partition(spec)..end).rev() {
            let Some(pod) = pods.get(&ordinal) else { return };
            if is_terminating(pod) {
                return;
            }
            if revision_of(pod) != versions.update {
                self.delete(set, pod);
                return;
            }
            if !healthy(pod) {
                return;
            }
        }
    }

    fn create(&self, set: &StatefulSet, spec: &StatefulSetSpec, versions: &Versions, ordinal: i32, start: i32) -> Option<Arc<Pod>> {
        let old = ordinal < start + partition(spec) && versions.current != versions.update;
        let (template, revision) = if old { (&versions.current_template, &versions.current) } else { (&spec.template, &versions.update) };
        if !self.make_claims(set, spec, ordinal) {
            return None;
        }
        let pod = new_pod(set, spec, template, revision, ordinal);
        let (set_name, pod_name) = (name_of(set), pod.metadata.name.clone().unwrap_or_default());
        match self.pods.create(set.metadata.namespace.as_deref().unwrap_or_default(), &pod) {
            Ok(pod) => {
                let message = format!("create Pod {pod_name} in StatefulSet {set_name} successful");
                self.recorder.normal(&reference(set), "SuccessfulCreate", message);
                Some(pod)
            }
            // The pod of that name is still on its way out, or is not ours.
            Err(fault) if fault.reason == Reason::AlreadyExists => None,
            Err(fault) => {
                let message = format!("create Pod {pod_name} in StatefulSet {set_name} failed error: {fault}");
                self.recorder.warning(&reference(set), "FailedCreate", message);
                None
            }
        }
    }

    fn make_claims(&self, set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> bool {
        let (namespace, set_name) = (set.metadata.namespace.as_deref().unwrap_or_default(), name_of(set));
        for claim in claims_of(set, spec, ordinal) {
            let claim_name = claim.metadata.name.clone().unwrap_or_default();
            if self.volume_claims.get(namespace, &claim_name).is_some() {
                continue;
            }
            let what = format!("create Claim {claim_name} Pod {set_name}-{ordinal} in StatefulSet {set_name}");
            match self.volume_claims.create(namespace, &claim) {
                Ok(_) => self.recorder.normal(&reference(set), "SuccessfulCreate", format!("{what} success")),
                Err(fault) => {
                    self.recorder.warning(&reference(set), "FailedCreate", format!("{what} failed error: {fault}"));
                    return false;
                }
            }
        }
        true
    }

    /// A pod that ended is removed, so that its number can be given again.
    fn replace_finished(&self, set: &StatefulSet, pod: &Pod) {
        if is_terminating(pod) {
            return;
        }
        let (namespace, pod_name) = key(pod);
        let set_name = name_of(set);
        let about = reference(set);
        if phase(pod) == "Failed" {
            let message = format!("StatefulSet {namespace}/{set_name} is recreating failed Pod {pod_name}");
            self.recorder.warning(&about, "RecreatingFailedPod", message);
        } else {
            let message = format!("StatefulSet {namespace}/{set_name} is recreating terminated Pod {pod_name}");
            self.recorder.normal(&about, "RecreatingTerminatedPod", message);
        }
        self.delete(set, pod);
    }

    fn delete(&self, set: &StatefulSet, pod: &Pod) {
        let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
        let (pod_key, set_name) = (key(pod), name_of(set));
        match self.pods.delete(&pod_key, &options) {
            Ok(()) => {
                let message = format!("delete Pod {} in StatefulSet {set_name} successful", pod_key.1);
                self.recorder.normal(&reference(set), "SuccessfulDelete", message);
            }
            Err(fault) => tracing::debug!(%fault, "pod went away meanwhile"),
        }
    }

    fn report(&self, set: &StatefulSet, spec: &StatefulSetSpec, versions: &Versions, pods: &[Arc<Pod>]) -> Outcome {
        let now = Timestamp::now();
        let old = set.status.clone().unwrap_or_default();
        let count = |filter: &dyn Fn(&Pod) -> bool| i32::try_from(pods.iter().filter(|pod| filter(pod)).count()).unwrap_or(i32::MAX);
        let running = |pod: &Pod| phase(pod) == "Running" && is_ready(pod);
        let of = |pod: &Pod, revision: &str| !is_terminating(pod) && revision_of(pod) == revision;
        let mut next: Option<Duration> = None;
        for pod in pods {
            if let Err(Some(left)) = availability(pod, min_ready(spec), now) {
                next = Some(next.map_or(left, |n| n.min(left)));
            }
        }
        let mut status = StatefulSetStatus {
            replicas: count(&|_| true),
            ready_replicas: Some(count(&running)).filter(|n| *n > 0),
            available_replicas: Some(count(&|pod| running(pod) && availability(pod, min_ready(spec), now).is_ok())),
            current_replicas: Some(count(&|pod| of(pod, &versions.current))).filter(|n| *n > 0),
            updated_replicas: Some(count(&|pod| of(pod, &versions.update))).filter(|n| *n > 0),
            current_revision: Some(versions.current.clone()),
            update_revision: Some(versions.update.clone()),
            observed_generation: set.metadata.generation,
            collision_count: Some(0),
            conditions: old.conditions.clone(),
        };
        let rolling = spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete");
        let done = status.updated_replicas.unwrap_or(0) == status.replicas && status.ready_replicas.unwrap_or(0) == status.replicas;
        if rolling && done && status.replicas == spec.replicas.unwrap_or(1) {
            status.current_revision.clone_from(&status.update_revision);
            status.current_replicas = status.updated_replicas;
        }
        if set.status.as_ref() != Some(&status) {
            let _ = self.sets.modify(&key(set), |set| set.status = Some(status));
        }
        next.map_or(Outcome::Done, Outcome::Again)
    }
}

fn versions(set: &StatefulSet, spec: &StatefulSetSpec, history: &History) -> Versions {
    let update = history.current.metadata.name.clone().unwrap_or_default();
    let known = set.status.as_ref().and_then(|s| s.current_revision.clone()).filter(|name| !name.is_empty());
    let known = known.and_then(|name| history.all.iter().find(|revision| revision.metadata.name.as_ref() == Some(&name)));
    match known {
        Some(revision) => Versions {
            current: revision.metadata.name.clone().unwrap_or_default(),
            current_template: template_of(revision).unwrap_or_else(|| spec.template.clone()),
            update,
        },
        None => Versions { current: update.clone(), update, current_template: spec.template.clone() },
    }
}

fn name_of(set: &StatefulSet) -> String {
    set.metadata.name.clone().unwrap_or_default()
}

fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}

fn min_ready(spec: &StatefulSetSpec) -> Duration {
    Duration::from_secs(u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0))
}

fn partition(spec: &StatefulSetSpec) -> i32 {
    spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.partition).unwrap_or(0)
}
