//! DaemonSets: one pod on every node that fits, replaced node by node when the template changes (`pkg/controller/daemon`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::claim;
use super::events::{Recorder, reference};
use super::objects::{Key, Objects};
use super::pods::{availability, generated_name, is_active, is_ready, key, phase};
use super::reconcile::{Outcome, Trigger, drive};
use super::revisions::{REVISION_LABEL, RevisionLabels, Revisions, hash_of};
use super::rollout::scaled;
use super::scheduler;
use crate::store::{DeleteOptions, Store};

const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";
/// What every pod of a DaemonSet puts up with (`AddOrUpdateDaemonPodTolerations`).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// Runs for ever.
pub(super) async fn run(store: Store, pods: Objects<Pod>) {
    let sets: Objects<DaemonSet> = Objects::new(&store);
    let nodes: Objects<Node> = Objects::new(&store);
    let all = sets.clone();
    let triggers = vec![
        Trigger::itself(sets.resource()),
        Trigger::controller_of(pods.resource(), "DaemonSet"),
        claim::orphans::<DaemonSet>(&store, &pods),
        Trigger::new(nodes.resource(), move |_| all.list(None).iter().map(|set| key(&**set)).collect()),
    ];
    let controller =
        Controller { recorder: Recorder::new(&store, "daemonset-controller", None), revisions: Revisions::new(&store), nodes, sets, pods };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    sets: Objects<DaemonSet>,
    nodes: Objects<Node>,
    pods: Objects<Pod>,
    revisions: Revisions,
    recorder: Recorder,
}

type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

impl Controller {
    fn reconcile(&self, set_key: &Key) -> Outcome {
        let Some(set) = self.sets.get(&set_key.0, &set_key.1) else { return Outcome::Done };
        let Some(spec) = &set.spec else { return Outcome::Done };
        if set.metadata.deletion_timestamp.is_some() {
            return Outcome::Done;
        }
        let history = match self.revisions.sync(&*set, &spec.template, RevisionLabels::DaemonSet) {
            Ok(history) => history,
            Err(fault) => {
                tracing::warn!(%fault, set = set_key.1, "the revisions of a DaemonSet could not be written");
                return Outcome::Again(Duration::from_secs(1));
            }
        };
        let Some(set) = self.with_template_generation(&set, history.current.revision) else { return Outcome::Done };
        let hash = hash_of(&history.current).to_owned();
        let nodes = self.nodes.list(None);
        let by_node = self.by_node(&set, spec);
        self.place(&set, spec, &nodes, &by_node, &hash);
        if spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete") {
            self.roll(&set, spec, &nodes, &self.by_node(&set, spec), &hash);
        }
        let by_node = self.by_node(&set, spec);
        self.revisions.truncate(&history, spec.revision_history_limit, |revision| {
            by_node.values().flatten().any(|pod| label(pod, REVISION_LABEL) == hash_of(revision))
        });
        self.report(&set, spec, &nodes, &by_node, &hash)
    }

    /// The template's generation, which kube-apiserver counts in an annotation: it grows with every revision.
    fn with_template_generation(&self, set: &Arc<DaemonSet>, revision: i64) -> Option<Arc<DaemonSet>> {
        let generation = revision.to_string();
        if set.metadata.annotations.as_ref().and_then(|a| a.get(GENERATION_ANNOTATION)) == Some(&generation) {
            return Some(set.clone());
        }
        let written = self.sets.modify(&key(&**set), |set| {
            set.metadata.annotations.get_or_insert_default().insert(GENERATION_ANNOTATION.to_owned(), generation);
        });
        written.ok()
    }

    fn by_node(&self, set: &DaemonSet, spec: &DaemonSetSpec) -> ByNode {
        let mut by_node = ByNode::new();
        for pod in claim::claim(&self.pods, set, &spec.selector, |_| true) {
            if let Some(node) = node_of(&pod) {
                by_node.entry(node).or_default().push(pod);
            }
        }
        for pods in by_node.values_mut() {
            pods.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
        }
        by_node
    }

    /// Makes what is missing and removes what is on a node that it should not be on, what ended, and what is there twice.
    fn place(&self, set: &DaemonSet, spec: &DaemonSetSpec, nodes: &[Arc<Node>], by_node: &ByNode, hash: &str) {
        let none = Vec::new();
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            let pods = by_node.get(&name).unwrap_or(&none);
            let (runs, stays) = fits(set, spec, node, hash);
            if !stays {
                pods.iter().filter(|pod| is_active(pod)).for_each(|pod| self.delete(set, pod));
                continue;
            }
            for pod in pods.iter().filter(|pod| phase(pod) == "Failed" && pod.metadata.deletion_timestamp.is_none()) {
                let (namespace, pod_name) = key(&**pod);
                let message = format!("Found failed daemon pod {namespace}/{pod_name} on node {name}, will try to kill it");
                self.recorder.warning(&reference(set), "FailedDaemonPod", message);
                self.delete(set, pod);
            }
            let active: Vec<_> = pods.iter().filter(|pod| is_active(pod)).collect();
            if active.is_empty() {
                // A pod that is going away keeps its place until it is gone.
                if runs && pods.is_empty() {
                    self.create(set, spec, &name, hash);
                }
                continue;
            }
            if max_surge(spec, nodes.len()) == 0 {
                active.iter().skip(1).for_each(|pod| self.delete(set, pod));
            }
        }
        for (name, pods) in by_node {
            if !nodes.iter().any(|node| node.metadata.name.as_ref() == Some(name)) {
                pods.iter().filter(|pod| is_active(pod)).for_each(|pod| self.delete(set, pod));
            }
        }
    }

    /// Replaces old pods, as many at a time as may be missing; or, with surge, beside the old ones.
    fn roll(&self, set: &DaemonSet, spec: &DaemonSetSpec, nodes: &[Arc<Node>], by_node: &ByNode, hash: &str) {
        let nodes: Vec<&str> =
            nodes.iter().filter(|node| fits(set, spec, node, hash).0).filter_map(|node| node.metadata.name.as_deref()).collect();
        let surge = max_surge(spec, nodes.len());
        let now = Timestamp::now();
        let available = |pod: &Pod| is_active(pod) && availability(pod, min_ready(spec), now).is_ok();
        let updated = |pod: &Pod| label(pod, REVISION_LABEL) == hash;
        let on = |node: &str| by_node.get(node).map_or(&[][..], Vec::as_slice);
        if surge > 0 {
            let mut surging = 0;
            for node in &nodes {
                let (new, old): (Vec<_>, Vec<_>) = on(node).iter().filter(|pod| is_active(pod)).partition(|pod| updated(pod));
                match (new.first(), old.first()) {
                    (Some(new), Some(old)) if available(new) => self.delete(set, old),
                    (Some(_), Some(_)) => surging += 1,
                    (None, Some(old)) if !available(old) => self.delete(set, old),
                    (None, Some(_)) if surging < surge => {
                        self.create(set, spec, node, hash);
                        surging += 1;
                    }
                    _ => {}
                }
            }
            return;
        }
        let limit = max_unavailable(spec, nodes.len());
        let unavailable = nodes.iter().filter(|node| !on(node).iter().any(|pod| available(pod))).count();
        let old = || nodes.iter().flat_map(|node| on(node)).filter(|pod| is_active(pod) && !updated(pod));
        // Those that do not work are replaced first: that makes nothing worse.
        old().filter(|pod| !available(pod)).for_each(|pod| self.delete(set, pod));
        old().filter(|pod| available(pod)).take(limit.saturating_sub(unavailable)).for_each(|pod| self.delete(set, pod));
    }

    fn create(&self, set: &DaemonSet, spec: &DaemonSetSpec, node: &str, hash: &str) {
        let pod = pod_for(set, spec, node, hash);
        match self.pods.create(set.metadata.namespace.as_deref().unwrap_or_default(), &pod) {
            Ok(pod) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                self.recorder.normal(&reference(set), "SuccessfulCreate", format!("Created pod: {name}"));
            }
            Err(fault) => self.recorder.warning(&reference(set), "FailedCreate", format!("Error creating: {fault}")),
        }
    }

    fn delete(&self, set: &DaemonSet, pod: &Pod) {
        let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
        match self.pods.delete(&key(pod), &options) {
            Ok(()) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                self.recorder.normal(&reference(set), "SuccessfulDelete", format!("Deleted pod: {name}"));
            }
            Err(fault) => tracing::debug!(%fault, "pod went away meanwhile"),
        }
    }

    fn report(&self, set: &DaemonSet, spec: &DaemonSetSpec, nodes: &[Arc<Node>], by_node: &ByNode, hash: &str) -> Outcome {
        let now = Timestamp::now();
        let mut status = DaemonSetStatus {
            observed_generation: set.metadata.generation,
            collision_count: set.status.as_ref().and_then(|s| s.collision_count),
            conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        let mut next: Option<Duration> = None;
        for node in nodes {
            let pods = by_node.get(node.metadata.name.as_deref().unwrap_or_default()).map_or(&[][..], Vec::as_slice);
            let active = pods.iter().filter(|pod| is_active(pod)).min_by_key(|pod| !is_ready(pod));
            if !fits(set, spec, node, hash).0 {
                status.number_misscheduled += i32::from(active.is_some());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(pod) = active else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(is_ready(pod));
            updated += i32::from(label(pod, REVISION_LABEL) == hash);
            match availability(pod, min_ready(spec), now) {
                Ok(()) => available += 1,
                Err(Some(left)) => next = Some(next.map_or(left, |n| n.min(left))),
                Err(None) => {}
            }
        }
        status.updated_number_scheduled = Some(updated).filter(|n| *n > 0);
        status.number_available = Some(available).filter(|n| *n > 0);
        status.number_unavailable = Some(status.desired_number_scheduled - available).filter(|n| *n > 0);
        if set.status.as_ref() != Some(&status) {
            let _ = self.sets.modify(&key(set), |set| set.status = Some(status));
        }
        next.map_or(Outcome::Done, Outcome::Again)
    }
}

/// The pod that the set has for one node: the scheduler is bound to it by node affinity.
fn pod_for(set: &DaemonSet, spec: &DaemonSetSpec, node: &str, hash: &str) -> Pod {
    let mut pod = claim::pod_of(set, &spec.template);
    let prefix = format!("{}-", set.metadata.name.as_deref().unwrap_or_default());
    pod.metadata.name = Some(generated_name(&prefix));
    pod.metadata.generate_name = Some(prefix);
    let generation = set.metadata.annotations.as_ref().and_then(|a| a.get(GENERATION_ANNOTATION)).cloned();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.to_owned(), hash.to_owned());
    labels.insert(GENERATION_LABEL.to_owned(), generation.unwrap_or_else(|| "1".to_owned()));
    let pod_spec = pod.spec.get_or_insert_default();
    let only_here =
        NodeSelectorRequirement { key: "metadata.name".to_owned(), operator: "In".to_owned(), values: Some(vec![node.to_owned()]) };
    let affinity = pod_spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let terms = affinity.required_during_scheduling_ignored_during_execution.get_or_insert_with(NodeSelector::default);
    if terms.node_selector_terms.is_empty() {
        terms.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut terms.node_selector_terms {
        term.match_fields = Some(vec![only_here.clone()]);
    }
    let tolerations = pod_spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    pod
}

/// Whether the set's pod should be put on the node, and whether one that is there may stay (`NodeShouldRunDaemonPod`).
fn fits(set: &DaemonSet, spec: &DaemonSetSpec, node: &Node, hash: &str) -> (bool, bool) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let pod = pod_for(set, spec, name, hash);
    let pod_spec = pod.spec.unwrap_or_default();
    if !scheduler::selects_node(&pod_spec, node) {
        return (false, false);
    }
    let refused = |effects: &[&str]| {
        let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten()).filter(|t| effects.contains(&t.effect.as_str()));
        let tolerations = pod_spec.tolerations.as_deref().unwrap_or_default();
        taints.into_iter().any(|taint| !tolerations.iter().any(|t| super::nodes::tolerates(t, taint)))
    };
    (!refused(&["NoSchedule", "NoExecute"]), !refused(&["NoExecute"]))
}

/// The node that a pod is on or meant for.
fn node_of(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.clone().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let required = spec.affinity.as_ref()?.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    fields.find(|field| field.key == "metadata.name")?.values.as_ref()?.first().cloned()
}

fn label<'a>(pod: &'a Pod, name: &str) -> &'a str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str)
}

fn min_ready(spec: &DaemonSetSpec) -> Duration {
    Duration::from_secs(u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0))
}

fn max_surge(spec: &DaemonSetSpec, nodes: usize) -> usize {
    share(spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.max_surge.as_ref()), nodes, 0)
}

fn max_unavailable(spec: &DaemonSetSpec, nodes: usize) -> usize {
    share(spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.max_unavailable.as_ref()), nodes, 1)
}

/// Both limits are rounded up here, so that neither is ever nothing when it says something.
fn share(value: Option<&IntOrString>, nodes: usize, default: usize) -> usize {
    let Some(value) = value else { return default };
    usize::try_from(scaled(value, i32::try_from(nodes).unwrap_or(i32::MAX), true)).unwrap_or(0)
}
