//! Node health (`node-lifecycle-controller`): a node whose Lease is no longer renewed is taken for lost; one that is not
//! Ready is tainted so that nothing new comes there and, after the time that its pods tolerate, what runs there is
//! evicted. And pods of nodes that no longer exist go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeSpec, Pod, PodCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::events::{Recorder, reference};
use super::objects::{Key, Objects};
use super::pods::key;
use super::reconcile::{Outcome, Trigger, drive};
use crate::store::{DeleteOptions, Store};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// So that the clock has really passed the limit when it is looked at again.
const LOOK_AFTER: Duration = Duration::from_millis(20);
/// What the DefaultTolerationSeconds admission gives pods that say nothing themselves.
const DEFAULT_TOLERATION: Duration = Duration::from_secs(300);

/// Runs for ever.
///
/// `grace`: how long a Lease may go without renewal (`--node-monitor-grace-period`).
pub(super) async fn run(store: Store, pods: Objects<Pod>, grace: Duration) {
    let nodes: Objects<Node> = Objects::new(&store);
    let triggers = vec![
        Trigger::itself(nodes.resource()),
        Trigger::new(pods.resource(), |pod| {
            pod["spec"]["nodeName"].as_str().map(|node| (String::new(), node.to_owned())).into_iter().collect()
        }),
    ];
    let controller = Controller {
        recorder: Recorder::new(&store, "node-controller", None),
        leases: Objects::new(&store),
        known: Mutex::default(),
        grace,
        nodes,
        pods,
    };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    leases: Objects<Lease>,
    /// Nodes that were greeted.
    known: Mutex<BTreeSet<String>>,
    grace: Duration,
    nodes: Objects<Node>,
    pods: Objects<Pod>,
    recorder: Recorder,
}

impl Controller {
    fn reconcile(&self, node_key: &Key) -> Outcome {
        let Some(node) = self.nodes.get("", &node_key.1) else { return Outcome::Done };
        self.greet(&node);
        let (node, look_again) = self.listen(node);
        let ready = node.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "Ready");
        let status = ready.map_or("True", |c| c.status.as_str());
        let spec = node.spec.clone().unwrap_or_default();
        let taints = wanted_taints(&spec, status);
        if spec.taints.clone().unwrap_or_default() != taints {
            let _ = self.nodes.modify(node_key, |node| {
                node.spec.get_or_insert_default().taints = Some(taints.clone()).filter(|taints| !taints.is_empty());
            });
        }
        if status == "True" && !taints.iter().any(|taint| taint.effect == "NoExecute") {
            return look_again;
        }
        let on_node: Vec<_> =
            self.pods.list(None).into_iter().filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_ref()) == Some(&node_key.1)).collect();
        if status != "True" {
            for pod in &on_node {
                self.mark_not_ready(pod);
            }
        }
        match (self.evict(&on_node, &taints), look_again) {
            (Outcome::Again(a), Outcome::Again(b)) => Outcome::Again(a.min(b)),
            (Outcome::Done, other) | (other, Outcome::Done) => other,
        }
    }

    fn greet(&self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            self.recorder.normal(&reference(node), "RegisteredNode", message);
        }
    }

    /// Compares the node's Lease with the clock. Nothing is said of a node that never had one: nobody promised to renew it.
    fn listen(&self, node: Arc<Node>) -> (Arc<Node>, Outcome) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let lease = self.leases.get("kube-node-lease", &name);
        let Some(renewed) = lease.and_then(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)) else {
            return (node, Outcome::Again(self.grace));
        };
        let silent = Duration::try_from(Timestamp::now().duration_since(renewed)).unwrap_or_default();
        if silent < self.grace {
            return (node, Outcome::Again(self.grace.saturating_sub(silent) + LOOK_AFTER));
        }
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        if conditions.clone().all(|condition| condition.status == "Unknown") {
            return (node, Outcome::Done);
        }
        let was_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let now = Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default());
        let lost = self.nodes.modify(&(String::new(), name.clone()), |node| {
            for condition in node.status.get_or_insert_default().conditions.iter_mut().flatten() {
                if condition.status != "Unknown" {
                    condition.status = "Unknown".to_owned();
                    condition.reason = Some("NodeStatusUnknown".to_owned());
                    condition.message = Some("Kubelet stopped posting node status.".to_owned());
                    condition.last_transition_time = Some(now.clone());
                }
            }
        });
        if was_ready {
            self.recorder.normal(&reference(&*node), "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
        }
        (lost.unwrap_or(node), Outcome::Done)
    }

    /// A node that nobody hears from cannot say that its pods are unready, so the control plane does.
    fn mark_not_ready(&self, pod: &Pod) {
        if super::pods::is_ready(pod) {
            let marked = self.pods.modify(&key(pod), |pod| {
                let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
                for condition in conditions.iter_mut().filter(|c| c.type_ == "Ready") {
                    condition.status = "False".to_owned();
                    condition.last_transition_time = Some(Time(Timestamp::now()));
                }
            });
            if marked.is_ok() {
                self.recorder.warning(&reference(pod), "NodeNotReady", "Node is not ready");
            }
        }
    }

    fn evict(&self, pods: &[Arc<Pod>], taints: &[Taint]) -> Outcome {
        let mut next: Option<Duration> = None;
        for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let Some(left) = taints.iter().filter_map(|taint| time_left(pod, taint)).min() else { continue };
            if left.is_zero() {
                let (namespace, name) = key(&**pod);
                self.recorder.normal(&reference(&**pod), "TaintManagerEviction", format!("Marking for deletion Pod {namespace}/{name}"));
                let _ = self.pods.modify(&(namespace.clone(), name.clone()), doom);
                let _ = self.pods.delete(&(namespace, name), &DeleteOptions::default());
            } else {
                next = Some(next.map_or(left, |n| n.min(left)));
            }
        }
        next.map_or(Outcome::Done, Outcome::Again)
    }
}

/// Says why the pod is going (KEP-3329).
fn doom(pod: &mut Pod) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByTaintManager".to_owned()),
        message: Some("Taint manager: deleting due to NoExecute taint".to_owned()),
        last_transition_time: Some(Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default())),
        ..PodCondition::default()
    });
}

/// The taints others set, and those that follow from the node's state, with the time at which each appeared.
fn wanted_taints(spec: &NodeSpec, ready: &str) -> Vec<Taint> {
    let known = spec.taints.clone().unwrap_or_default();
    let ours = [NOT_READY, UNREACHABLE, UNSCHEDULABLE];
    let mut taints: Vec<Taint> = known.iter().filter(|t| !ours.contains(&t.key.as_str())).cloned().collect();
    let mut add = |key: &str, effect: &str| {
        let same = known.iter().find(|t| t.key == key && t.effect == effect);
        let time_added = Some(Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()));
        taints.push(same.cloned().unwrap_or_else(|| Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None }));
    };
    match ready {
        "True" => {}
        "False" => ["NoSchedule", "NoExecute"].iter().for_each(|effect| add(NOT_READY, effect)),
        _ => ["NoSchedule", "NoExecute"].iter().for_each(|effect| add(UNREACHABLE, effect)),
    }
    if spec.unschedulable == Some(true) {
        add(UNSCHEDULABLE, "NoSchedule");
    }
    taints
}

/// Whether a toleration covers a taint.
pub(super) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        _ => !key.is_empty() && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
    }
}

/// How long the pod may still stay in spite of a NoExecute taint; `None`: for ever.
fn time_left(pod: &Pod, taint: &Taint) -> Option<Duration> {
    if taint.effect != "NoExecute" {
        return None;
    }
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let matching: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
    let limit = if matching.is_empty() {
        if [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()) { DEFAULT_TOLERATION } else { Duration::ZERO }
    } else {
        let seconds = matching.iter().filter_map(|t| t.toleration_seconds).min()?;
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    };
    let since = taint.time_added.as_ref().map_or_else(Timestamp::now, |time| time.0);
    let passed = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
    Some(limit.saturating_sub(passed))
}

/// Labels of all nodes, for the scheduler's look at topology.
pub(super) fn labels_of(nodes: &[Arc<Node>]) -> BTreeMap<String, BTreeMap<String, String>> {
    let label = |node: &Node| (node.metadata.name.clone().unwrap_or_default(), node.metadata.labels.clone().unwrap_or_default());
    nodes.iter().map(|node| label(node)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, effect: &str) -> Taint {
        Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() }
    }

    #[test]
    fn cordoned_and_lost_nodes_are_tainted_and_freed_again() {
        let keys = |taints: Vec<Taint>| taints.into_iter().map(|t| format!("{}:{}", t.key, t.effect)).collect::<Vec<_>>();
        let mut spec = NodeSpec { unschedulable: Some(true), taints: Some(vec![taint("mine", "NoSchedule")]), ..NodeSpec::default() };
        assert_eq!(keys(wanted_taints(&spec, "True")), ["mine:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule"]);
        spec.taints = Some(wanted_taints(&spec, "Unknown"));
        spec.unschedulable = None;
        assert_eq!(keys(wanted_taints(&spec, "True")), ["mine:NoSchedule"]);
    }

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let of = |key: &str, operator: &str, effect: &str| Toleration {
            key: Some(key.to_owned()).filter(|k| !k.is_empty()),
            operator: Some(operator.to_owned()),
            effect: Some(effect.to_owned()).filter(|e| !e.is_empty()),
            ..Toleration::default()
        };
        assert!(tolerates(&of("", "Exists", ""), &taint("any", "NoExecute")));
        assert!(tolerates(&of("any", "Exists", "NoExecute"), &taint("any", "NoExecute")));
        assert!(!tolerates(&of("any", "Exists", "NoSchedule"), &taint("any", "NoExecute")));
        assert!(tolerates(&of("any", "Equal", ""), &taint("any", "NoExecute")));
        assert!(!tolerates(&of("other", "Exists", ""), &taint("any", "NoExecute")));
    }

    #[test]
    fn a_pod_without_tolerations_stays_five_minutes_on_a_lost_node() {
        let left = time_left(&Pod::default(), &taint(UNREACHABLE, "NoExecute"));
        assert!(left.is_some_and(|left| left > Duration::from_secs(290)));
        assert_eq!(time_left(&Pod::default(), &taint("mine", "NoExecute")), Some(Duration::ZERO));
        assert_eq!(time_left(&Pod::default(), &taint(UNREACHABLE, "NoSchedule")), None);
    }
}
