//! PodDisruptionBudgets: how many of the pods that one selects may be evicted now (`pkg/controller/disruption`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::events::{Recorder, reference};
use super::objects::{Key, Objects, key_of};
use super::pods::{controller_of, is_finished, is_ready, is_terminating, key};
use super::reconcile::{Outcome, Trigger, drive};
use super::rollout::scaled;
use super::selectors;
use crate::store::Store;

/// An eviction that was allowed but never became a deletion is forgotten after this time (`DeletionTimeout`).
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs for ever.
pub(super) async fn run(store: Store, pods: Objects<Pod>) {
    let budgets: Objects<PodDisruptionBudget> = Objects::new(&store);
    let sets: Objects<ReplicaSet> = Objects::new(&store);
    let stateful_sets: Objects<StatefulSet> = Objects::new(&store);
    let in_namespace = |resource: &crate::store::Resource| {
        let budgets = budgets.clone();
        Trigger::new(resource, move |object| budgets.list(Some(&key_of(object).0)).iter().map(|budget| key(&**budget)).collect())
    };
    let deployments: Objects<Deployment> = Objects::new(&store);
    let triggers = vec![
        Trigger::itself(budgets.resource()),
        in_namespace(pods.resource()),
        in_namespace(deployments.resource()),
        in_namespace(sets.resource()),
        in_namespace(stateful_sets.resource()),
    ];
    let recorder = Recorder::new(&store, "controllermanager", None);
    let controller = Controller { recorder, budgets, pods, deployments, sets, stateful_sets };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    budgets: Objects<PodDisruptionBudget>,
    pods: Objects<Pod>,
    deployments: Objects<Deployment>,
    sets: Objects<ReplicaSet>,
    stateful_sets: Objects<StatefulSet>,
    recorder: Recorder,
}

impl Controller {
    fn reconcile(&self, budget_key: &Key) -> Outcome {
        let Some(budget) = self.budgets.get(&budget_key.0, &budget_key.1) else { return Outcome::Done };
        let Some(spec) = &budget.spec else { return Outcome::Done };
        let selector = spec.selector.clone();
        let pods: Vec<Arc<Pod>> = self
            .pods
            .list(Some(&budget_key.0))
            .into_iter()
            .filter(|pod| selector.as_ref().is_some_and(|s| selectors::matches(s, pod.metadata.labels.as_ref())))
            .collect();
        if pods.is_empty() {
            self.recorder.normal(&reference(&*budget), "NoPods", "No matching pods found");
        }
        let (expected, desired) = match self.healthy_wanted(spec, &pods) {
            Ok(numbers) => numbers,
            Err(problem) => {
                self.recorder.warning(&reference(&*budget), "CalculateExpectedPodCountFailed", problem.clone());
                self.write(&budget, |status, generation| {
                    status.disruptions_allowed = 0;
                    set_condition(status, generation, "False", "SyncFailed", &problem);
                });
                return Outcome::Done;
            }
        };
        let now = Timestamp::now();
        let old = budget.status.clone().unwrap_or_default();
        let (disrupted, recheck) = still_disrupted(&old, &pods, now);
        let healthy = pods.iter().filter(|pod| is_ready(pod) && !is_terminating(pod) && !disrupted.contains_key(&key(&***pod).1)).count();
        let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
        let allowed = if expected == 0 { 0 } else { (healthy - desired).max(0) };
        self.write(&budget, |status, generation| {
            status.current_healthy = healthy;
            status.desired_healthy = desired;
            status.expected_pods = expected;
            status.disruptions_allowed = allowed;
            status.disrupted_pods = Some(disrupted).filter(|pods| !pods.is_empty());
            status.observed_generation = generation;
            if allowed > 0 {
                set_condition(status, generation, "True", "SufficientPods", "");
            } else {
                set_condition(status, generation, "False", "InsufficientPods", "");
            }
        });
        recheck.map_or(Outcome::Done, Outcome::Again)
    }

    fn write(&self, budget: &PodDisruptionBudget, change: impl FnOnce(&mut PodDisruptionBudgetStatus, Option<i64>)) {
        let mut status = budget.status.clone().unwrap_or_default();
        change(&mut status, budget.metadata.generation);
        if budget.status.as_ref() != Some(&status) {
            let version = budget.metadata.resource_version.clone();
            let _ = self.budgets.modify(&key(budget), |budget| {
                // An eviction may have used the budget meanwhile; its own change brings the key back.
                if budget.metadata.resource_version == version {
                    budget.status = Some(status);
                }
            });
        }
    }

    /// How many pods there should be, and how many of them healthy.
    fn healthy_wanted(&self, spec: &PodDisruptionBudgetSpec, pods: &[Arc<Pod>]) -> Result<(i32, i32), String> {
        let counted = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        match (&spec.max_unavailable, &spec.min_available) {
            (Some(most), _) => {
                let expected = self.scale_of_owners(pods)?;
                Ok((expected, (expected - scaled(most, expected, true)).max(0)))
            }
            (None, Some(IntOrString::Int(least))) => Ok((counted, *least)),
            (None, Some(least)) => {
                let expected = self.scale_of_owners(pods)?;
                Ok((expected, scaled(least, expected, true)))
            }
            (None, None) => Ok((counted, 1)),
        }
    }

    /// What the controllers of the pods ask for together.
    fn scale_of_owners(&self, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !is_finished(pod)) {
            let (namespace, name) = key(&**pod);
            let Some(owner) = controller_of(&pod.metadata) else { continue };
            let found = match owner.kind.as_str() {
                "ReplicaSet" => self.sets.get(&namespace, &owner.name).and_then(|set| {
                    let deployment = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
                    let deployment = deployment.and_then(|owner| self.deployments.get(&namespace, &owner.name));
                    match deployment {
                        Some(deployment) => Some((deployment.metadata.uid.clone()?, deployment.spec.as_ref()?.replicas.unwrap_or(1))),
                        None => Some((set.metadata.uid.clone()?, set.spec.as_ref()?.replicas.unwrap_or(1))),
                    }
                }),
                "StatefulSet" => self
                    .stateful_sets
                    .get(&namespace, &owner.name)
                    .and_then(|set| Some((set.metadata.uid.clone()?, set.spec.as_ref()?.replicas.unwrap_or(1)))),
                kind => {
                    let resource = format!("{}s", kind.to_lowercase());
                    let group = owner.api_version.split_once('/').map_or_else(String::new, |(group, _)| format!(".{group}"));
                    return Err(format!(
                        "found no controllers for pod \"{name}\": {resource}{group} does not implement the scale subresource"
                    ));
                }
            };
            let (uid, replicas) = found.ok_or_else(|| format!("found no controllers for pod \"{name}\""))?;
            scales.insert(uid, replicas);
        }
        Ok(scales.values().sum())
    }
}

/// Evictions allowed but not yet seen as deletions, and when the next of them is given up.
fn still_disrupted(status: &PodDisruptionBudgetStatus, pods: &[Arc<Pod>], now: Timestamp) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut next: Option<Duration> = None;
    let mut kept = BTreeMap::new();
    for (name, since) in status.disrupted_pods.iter().flatten() {
        let alive = pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(name) && !is_terminating(pod));
        let passed = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
        if alive && passed < DELETION_TIMEOUT {
            let left = DELETION_TIMEOUT.saturating_sub(passed);
            next = Some(next.map_or(left, |n| n.min(left)));
            kept.insert(name.clone(), since.clone());
        }
    }
    (kept, next)
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, generation: Option<i64>, value: &str, reason: &str, message: &str) {
    let conditions = status.conditions.get_or_insert_default();
    let since = conditions.iter().find(|c| c.type_ == "DisruptionAllowed" && c.status == value).map(|c| c.last_transition_time.clone());
    conditions.retain(|c| c.type_ != "DisruptionAllowed");
    conditions.push(Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default())),
        observed_generation: generation,
    });
}
