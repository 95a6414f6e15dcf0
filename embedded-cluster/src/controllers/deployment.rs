//! Deployments: which ReplicaSet is the new one, how the old ones make room for it, and what is reported about it.
//! The arithmetic of a rolling update is in [`super::rollout`].

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::events::{Recorder, reference};
use super::objects::{Key, Objects, key_of};
use super::pods::{controlled_by, controller_of, is_finished, key, template_hash};
use super::reconcile::{Outcome, Trigger, drive};
use super::rollout::{Limits, Replicas, proportional, roll};
use super::selectors;
use crate::store::{DeleteOptions, Store};

const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";

/// Runs for ever.
pub(super) async fn run(store: Store, pods: Objects<Pod>) {
    let deployments: Objects<Deployment> = Objects::new(&store);
    let sets: Objects<ReplicaSet> = Objects::new(&store);
    let triggers = vec![
        Trigger::itself(deployments.resource()),
        Trigger::controller_of(sets.resource(), "Deployment"),
        // `Recreate` waits for the last old pod to be gone, which changes no ReplicaSet.
        Trigger::new(pods.resource(), |pod| {
            let owners = pod["metadata"]["ownerReferences"].as_array();
            let set = owners.into_iter().flatten().find(|o| o["controller"] == true && o["kind"] == "ReplicaSet");
            let name = set.and_then(|o| o["name"].as_str()).and_then(|name| name.rsplit_once('-'));
            name.map(|(deployment, _hash)| (key_of(pod).0, deployment.to_owned())).into_iter().collect()
        }),
    ];
    let controller = Controller { recorder: Recorder::new(&store, "deployment-controller", None), deployments, sets, pods };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    deployments: Objects<Deployment>,
    sets: Objects<ReplicaSet>,
    pods: Objects<Pod>,
    recorder: Recorder,
}

impl Controller {
    fn reconcile(&self, key: &Key) -> Outcome {
        let Some(deployment) = self.deployments.get(&key.0, &key.1) else { return Outcome::Done };
        let Some(spec) = deployment.spec.clone() else { return Outcome::Done };
        if deployment.metadata.deletion_timestamp.is_some() {
            return Outcome::Done;
        }
        let mut sets = self.claim(&deployment, &spec);
        sets.sort_by(|a, b| (&a.metadata.creation_timestamp, &a.metadata.name).cmp(&(&b.metadata.creation_timestamp, &b.metadata.name)));
        let mut new = find_new(&sets, &spec.template).cloned();
        if !spec.paused.unwrap_or(false) {
            let recreate_waits = is_recreate(&spec) && new.is_none() && self.old_pods_run(&deployment, &sets, None);
            if !recreate_waits {
                new = self.with_revision(&deployment, &spec, &sets, new);
            }
        }
        if let Some(new) = &new
            && !sets.iter().any(|set| set.metadata.uid == new.metadata.uid)
        {
            sets.push(new.clone());
        }
        let sets = self.scale(&deployment, &spec, sets, new.as_deref());
        let new = new.and_then(|new| sets.iter().find(|set| set.metadata.uid == new.metadata.uid).cloned());
        self.clean_up(&spec, &sets, new.as_deref());
        self.report(&deployment, &spec, &sets, new.as_deref())
    }

    /// The Deployment's ReplicaSets, those without controller that match taken over.
    fn claim(&self, deployment: &Deployment, spec: &DeploymentSpec) -> Vec<Arc<ReplicaSet>> {
        let uid = deployment.metadata.uid.as_deref();
        let mut claimed = Vec::new();
        for set in self.sets.list(deployment.metadata.namespace.as_deref()) {
            match controller_of(&set.metadata) {
                Some(owner) if Some(owner.uid.as_str()) == uid => claimed.push(set),
                None if set.metadata.deletion_timestamp.is_none() && selectors::matches(&spec.selector, set.metadata.labels.as_ref()) => {
                    let adopted = self.sets.modify(&key(&*set), |set| {
                        set.metadata.owner_references.get_or_insert_default().push(controlled_by(deployment));
                    });
                    claimed.extend(adopted);
                }
                _ => {}
            }
        }
        claimed
    }

    fn old_pods_run(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> bool {
        let old: Vec<_> = sets.iter().filter(|s| Some(&s.metadata.uid) != new.map(|n| &n.metadata.uid)).collect();
        self.pods.list(deployment.metadata.namespace.as_deref()).iter().any(|pod| {
            !is_finished(pod)
                && controller_of(&pod.metadata)
                    .is_some_and(|owner| old.iter().any(|set| set.metadata.uid.as_deref() == Some(owner.uid.as_str())))
        })
    }

    /// The new ReplicaSet, made if need be, and the revision numbers on it and on the Deployment.
    fn with_revision(
        &self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        sets: &[Arc<ReplicaSet>],
        new: Option<Arc<ReplicaSet>>,
    ) -> Option<Arc<ReplicaSet>> {
        let newest_old = sets
            .iter()
            .filter(|set| Some(&set.metadata.uid) != new.as_ref().map(|n| &n.metadata.uid))
            .map(|set| revision(&set.metadata))
            .max()
            .unwrap_or(0);
        let wanted_revision = newest_old + 1;
        let new = match new {
            Some(set) => {
                let number = revision(&set.metadata).max(wanted_revision);
                let copied = copied_annotations(deployment);
                let stale = revision(&set.metadata) != number
                    || set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0) != spec.min_ready_seconds.unwrap_or(0)
                    || copied.iter().any(|(k, v)| set.metadata.annotations.as_ref().and_then(|a| a.get(k)) != Some(v));
                if stale {
                    self.sets
                        .modify(&key(&*set), |set| {
                            let annotations = set.metadata.annotations.get_or_insert_default();
                            if let Some(old) = annotations.insert(REVISION.to_owned(), number.to_string())
                                && old != number.to_string()
                            {
                                let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
                                *history = if history.is_empty() { old } else { format!("{history},{old}") };
                            }
                            annotations.extend(copied);
                            if let Some(set) = &mut set.spec {
                                set.min_ready_seconds = spec.min_ready_seconds;
                            }
                        })
                        .unwrap_or(set)
                } else {
                    set
                }
            }
            None => self.create_set(deployment, spec, sets, wanted_revision)?,
        };
        let number = revision(&new.metadata).to_string();
        if deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)) != Some(&number) {
            let _ = self.deployments.modify(&key(deployment), |deployment| {
                deployment.metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), number);
            });
        }
        Some(new)
    }

    fn create_set(&self, deployment: &Deployment, spec: &DeploymentSpec, sets: &[Arc<ReplicaSet>], number: i64) -> Option<Arc<ReplicaSet>> {
        let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let hash = hash_of(&spec.template, collisions);
        let name = format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default());
        let mut template = spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH.to_owned(), hash.clone());
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH.to_owned(), hash);
        let limits = Limits::of(spec);
        let replicas = if is_recreate(spec) {
            limits.desired
        } else {
            let others: Vec<Replicas> = sets.iter().map(|set| counts(set)).collect();
            limits.room_for_new(0, &others)
        };
        let mut annotations = copied_annotations(deployment);
        annotations.insert(REVISION.to_owned(), number.to_string());
        annotations.insert(DESIRED.to_owned(), limits.desired.to_string());
        annotations.insert(MAXIMUM.to_owned(), (limits.desired + limits.max_surge).to_string());
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: deployment.metadata.namespace.clone(),
                labels: template.metadata.as_ref().and_then(|m| m.labels.clone()),
                annotations: Some(annotations),
                owner_references: Some(vec![controlled_by(deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        match self.sets.create(namespace, &set) {
            Ok(created) => {
                if replicas > 0 {
                    self.recorder.normal(
                        &reference(deployment),
                        "ScalingReplicaSet",
                        format!("Scaled up replica set {name} from 0 to {replicas}"),
                    );
                }
                Some(created)
            }
            Err(fault) if fault.reason == crate::store::Reason::AlreadyExists => {
                // Another template with the same hash, or a set of that name that is not ours: the next number differs.
                let _ = self.deployments.modify(&key(deployment), |deployment| {
                    deployment.status.get_or_insert_default().collision_count = Some(collisions + 1);
                });
                None
            }
            Err(fault) => {
                self.recorder.warning(
                    &reference(deployment),
                    "ReplicaSetCreateError",
                    format!("Failed to create new replica set \"{name}\": {fault}"),
                );
                None
            }
        }
    }

    /// Takes one step of scaling or rolling; gives the sets as they are afterwards.
    fn scale(
        &self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        mut sets: Vec<Arc<ReplicaSet>>,
        new: Option<&ReplicaSet>,
    ) -> Vec<Arc<ReplicaSet>> {
        let limits = Limits::of(spec);
        let new_index = new.and_then(|new| sets.iter().position(|set| set.metadata.uid == new.metadata.uid));
        let before: Vec<Replicas> = sets.iter().map(|set| counts(set)).collect();
        let known_desired = |set: &ReplicaSet| -> Option<i32> { set.metadata.annotations.as_ref()?.get(DESIRED)?.parse().ok() };
        let is_scaling =
            sets.iter().filter(|set| counts(set).wanted > 0).any(|set| known_desired(set).is_some_and(|known| known != limits.desired));
        let after: Vec<i32> = if spec.paused.unwrap_or(false) || is_scaling {
            proportional(&limits, &before, new_index, is_recreate(spec))
        } else if is_recreate(spec) {
            let old_stopped = before.iter().enumerate().all(|(i, r)| Some(i) == new_index || r.wanted == 0);
            let may_start = old_stopped && !self.old_pods_run(deployment, &sets, new);
            let target = |i: usize, r: &Replicas| match Some(i) == new_index {
                true if may_start => limits.desired,
                true => r.wanted,
                false => 0,
            };
            before.iter().enumerate().map(|(i, r)| target(i, r)).collect()
        } else {
            roll(&limits, &before, new_index)
        };
        let (desired, maximum) = (limits.desired.to_string(), (limits.desired + limits.max_surge).to_string());
        for (i, set) in sets.iter_mut().enumerate() {
            let annotation = |name: &str| set.metadata.annotations.as_ref().and_then(|a| a.get(name));
            let described = annotation(DESIRED) == Some(&desired) && annotation(MAXIMUM) == Some(&maximum);
            let is_current = counts(set).wanted > 0 || after[i] > 0;
            if before[i].wanted == after[i] && (described || !is_current) {
                continue;
            }
            let changed = self.sets.modify(&key(&**set), |set| {
                if let Some(spec) = &mut set.spec {
                    spec.replicas = Some(after[i]);
                }
                let annotations = set.metadata.annotations.get_or_insert_default();
                annotations.insert(DESIRED.to_owned(), desired.clone());
                annotations.insert(MAXIMUM.to_owned(), maximum.clone());
            });
            let Ok(changed) = changed else { continue };
            if before[i].wanted != after[i] {
                let direction = if after[i] > before[i].wanted { "up" } else { "down" };
                let name = set.metadata.name.as_deref().unwrap_or_default();
                self.recorder.normal(
                    &reference(deployment),
                    "ScalingReplicaSet",
                    format!("Scaled {direction} replica set {name} from {} to {}", before[i].wanted, after[i]),
                );
            }
            *set = changed;
        }
        sets
    }

    /// Old sets without pods beyond `revisionHistoryLimit` go, oldest revision first.
    fn clean_up(&self, spec: &DeploymentSpec, sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) {
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(usize::MAX);
        let mut idle: Vec<_> = sets
            .iter()
            .filter(|set| Some(&set.metadata.uid) != new.map(|n| &n.metadata.uid))
            .filter(|set| {
                let status = set.status.clone().unwrap_or_default();
                counts(set).wanted == 0
                    && status.replicas == 0
                    && status.observed_generation >= set.metadata.generation
                    && set.metadata.deletion_timestamp.is_none()
            })
            .collect();
        idle.sort_by_key(|set| revision(&set.metadata));
        for set in idle.iter().take(idle.len().saturating_sub(limit)) {
            let _ = self.sets.delete(&key(&***set), &DeleteOptions::default());
        }
    }

    fn report(&self, deployment: &Deployment, spec: &DeploymentSpec, sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> Outcome {
        let limits = Limits::of(spec);
        let old_status = deployment.status.clone().unwrap_or_default();
        let sum = |of: fn(&Replicas) -> i32| sets.iter().map(|set| of(&counts(set))).sum::<i32>();
        let (total, ready, available) = (sum(|r| r.present), sum(|r| r.ready), sum(|r| r.available));
        let updated = new.map_or(0, |new| counts(new).present);
        let positive = |n: i32| Some(n).filter(|n| *n > 0);
        let mut status = DeploymentStatus {
            observed_generation: deployment.metadata.generation,
            replicas: positive(total),
            updated_replicas: positive(updated),
            ready_replicas: positive(ready),
            available_replicas: positive(available),
            unavailable_replicas: positive(limits.desired.max(total) - available),
            collision_count: self
                .deployments
                .get(&key(deployment).0, &key(deployment).1)
                .and_then(|d| d.status.clone())
                .and_then(|s| s.collision_count),
            conditions: old_status.conditions.clone(),
            ..DeploymentStatus::default()
        };
        let conditions = status.conditions.get_or_insert_default();
        if available >= limits.desired - limits.max_unavailable {
            set_condition(conditions, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
        } else {
            set_condition(conditions, "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.");
        }
        let outcome = self.progress(deployment, spec, &old_status, &mut status, new, &limits);
        if deployment.status.as_ref() != Some(&status) {
            let _ = self.deployments.modify(&key(deployment), |deployment| deployment.status = Some(status));
        }
        outcome
    }

    /// The condition `Progressing`, which `kubectl rollout status` follows.
    fn progress(
        &self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        old: &DeploymentStatus,
        status: &mut DeploymentStatus,
        new: Option<&ReplicaSet>,
        limits: &Limits,
    ) -> Outcome {
        let Some(deadline) = spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX) else { return Outcome::Done };
        let conditions = status.conditions.get_or_insert_default();
        let known = conditions.iter().find(|c| c.type_ == "Progressing").cloned();
        let reason_of = |c: &DeploymentCondition| c.reason.clone().unwrap_or_default();
        if spec.paused.unwrap_or(false) {
            if known.as_ref().map(reason_of).as_deref() != Some("DeploymentPaused") {
                set_condition(conditions, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused");
            }
            return Outcome::Done;
        }
        let Some(new) = new else { return Outcome::Done };
        let name = new.metadata.name.as_deref().unwrap_or_default();
        let (updated, total, available) =
            (status.updated_replicas.unwrap_or(0), status.replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
        let complete = updated == limits.desired && total == limits.desired && available == limits.desired;
        if complete {
            set_condition(
                conditions,
                "Progressing",
                "True",
                "NewReplicaSetAvailable",
                &format!("ReplicaSet \"{name}\" has successfully progressed."),
            );
            return Outcome::Done;
        }
        let about_this_set = known.as_ref().and_then(|c| c.message.as_deref()).is_some_and(|m| m.contains(&format!("\"{name}\"")));
        let advanced = updated > old.updated_replicas.unwrap_or(0)
            || total - updated < old.replicas.unwrap_or(0) - old.updated_replicas.unwrap_or(0)
            || status.ready_replicas > old.ready_replicas
            || status.available_replicas > old.available_replicas;
        let now = Timestamp::now();
        match known {
            Some(condition) if about_this_set && !advanced => {
                if reason_of(&condition) == "NewReplicaSetAvailable" || reason_of(&condition) == "ProgressDeadlineExceeded" {
                    // A finished rollout does not fail later because a pod became unready.
                    return Outcome::Done;
                }
                let since = condition.last_update_time.map_or(now, |time| time.0);
                let passed = now.duration_since(since).as_secs();
                let deadline = i64::from(deadline);
                if passed < deadline {
                    return Outcome::Again(Duration::from_secs(u64::try_from(deadline - passed).unwrap_or(1)));
                }
                set_condition(
                    conditions,
                    "Progressing",
                    "False",
                    "ProgressDeadlineExceeded",
                    &format!("ReplicaSet \"{name}\" has timed out progressing."),
                );
                Outcome::Done
            }
            Some(_) if about_this_set || old.observed_generation == deployment.metadata.generation => {
                set_progress(conditions, "ReplicaSetUpdated", &format!("ReplicaSet \"{name}\" is progressing."), now);
                Outcome::Again(Duration::from_secs(u64::try_from(deadline).unwrap_or(1)))
            }
            _ => {
                let (reason, message) = if counts(new).present == 0 {
                    ("NewReplicaSetCreated", format!("Created new replica set \"{name}\""))
                } else {
                    ("FoundNewReplicaSet", format!("Found new replica set \"{name}\""))
                };
                set_progress(conditions, reason, &message, now);
                Outcome::Again(Duration::from_secs(u64::try_from(deadline).unwrap_or(1)))
            }
        }
    }
}

fn set_progress(conditions: &mut Vec<DeploymentCondition>, reason: &str, message: &str, now: Timestamp) {
    set_condition(conditions, "Progressing", "True", reason, message);
    if let Some(condition) = conditions.iter_mut().find(|c| c.type_ == "Progressing") {
        condition.last_update_time = Some(Time(whole_seconds(now)));
    }
}

fn set_condition(conditions: &mut Vec<DeploymentCondition>, kind: &str, status: &str, reason: &str, message: &str) {
    let now = Some(Time(whole_seconds(Timestamp::now())));
    let known = conditions.iter().position(|c| c.type_ == kind);
    let mut last_transition_time = now.clone();
    if let Some(known) = known {
        let condition = &conditions[known];
        if condition.status == status && condition.reason.as_deref() == Some(reason) && condition.message.as_deref() == Some(message) {
            return;
        }
        if condition.status == status {
            last_transition_time.clone_from(&condition.last_transition_time);
        }
    }
    let condition = DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time,
        last_update_time: now,
    };
    match known {
        Some(known) => conditions[known] = condition,
        None => conditions.push(condition),
    }
}

/// `metav1.Time` keeps whole seconds; comparing with what was stored needs the same.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

fn counts(set: &ReplicaSet) -> Replicas {
    let status = set.status.clone().unwrap_or_default();
    Replicas {
        wanted: set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1),
        present: status.replicas,
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
    }
}

fn revision(metadata: &ObjectMeta) -> i64 {
    metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or(0)
}

fn copied_annotations(deployment: &Deployment) -> std::collections::BTreeMap<String, String> {
    let own = [
        REVISION,
        REVISION_HISTORY,
        DESIRED,
        MAXIMUM,
        "kubectl.kubernetes.io/last-applied-configuration",
        "deprecated.deployment.rollback.to",
    ];
    let annotations = deployment.metadata.annotations.iter().flatten();
    annotations.filter(|(name, _)| !own.contains(&name.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn hash_of(template: &PodTemplateSpec, collisions: i32) -> String {
    template_hash(&serde_json::to_value(template).unwrap_or_default(), collisions)
}

/// The set whose template is the Deployment's: equal but for the hash label, as a rollback needs it, or made from it,
/// should the stored copy have gained defaults.
fn find_new<'a>(sets: &'a [Arc<ReplicaSet>], template: &PodTemplateSpec) -> Option<&'a Arc<ReplicaSet>> {
    let without_hash = |set: &ReplicaSet| {
        let mut template = set.spec.as_ref()?.template.clone()?;
        let labels = template.metadata.as_mut()?.labels.as_mut()?;
        labels.remove(HASH);
        Some(template)
    };
    let mut wanted = template.clone();
    wanted.metadata.get_or_insert_default().labels.get_or_insert_default().remove(HASH);
    let label = |set: &ReplicaSet| set.metadata.labels.as_ref().and_then(|l| l.get(HASH)).cloned();
    let hashes: Vec<String> = (0..4).map(|collisions| hash_of(template, collisions)).collect();
    sets.iter()
        .filter(|set| set.metadata.deletion_timestamp.is_none())
        .find(|set| without_hash(set).as_ref() == Some(&wanted))
        .or_else(|| sets.iter().find(|set| label(set).is_some_and(|hash| hashes.contains(&hash))))
}
