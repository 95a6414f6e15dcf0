//! Gives each new pod a node: filters by what the pod demands, scores by what it would like, spreads the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, PersistentVolumeClaim, Pod, PodAffinityTerm, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::events::{Recorder, reference};
use super::nodes::{labels_of, tolerates};
use super::objects::{Key, Objects};
use super::pods::{controller_of, is_finished, key};
use super::reconcile::{Outcome, Trigger, drive};
use super::selectors::{self, matches_map, requirement_holds};
use crate::store::Store;

const NAME: &str = "default-scheduler";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Runs for ever.
pub(super) async fn run(store: Store, pods: Objects<Pod>) {
    let nodes: Objects<Node> = Objects::new(&store);
    let waiting = pods.clone();
    let other_waiting = pods.clone();
    let claims: Objects<PersistentVolumeClaim> = Objects::new(&store);
    let claiming = pods.clone();
    let unbound = |pods: &Objects<Pod>| -> Vec<Key> {
        pods.list(None).iter().filter(|pod| node_of(pod).is_none() && !is_finished(pod)).map(|pod| key(&**pod)).collect()
    };
    let triggers = vec![
        Trigger::new(pods.resource(), move |pod| {
            if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
                vec![super::objects::key_of(pod)]
            } else if pod["metadata"]["deletionTimestamp"].is_string() {
                // A place may have become free.
                unbound(&waiting)
            } else {
                Vec::new()
            }
        }),
        Trigger::new(nodes.resource(), move |_| unbound(&other_waiting)),
        Trigger::new(claims.resource(), move |_| unbound(&claiming)),
    ];
    let scheduler = Scheduler { claims, recorder: Recorder::of_new_events(&store, NAME, HOST.to_owned()), nodes, pods };
    drive(store, triggers, move |key| scheduler.reconcile(key)).await;
}

/// The control plane has no machine of its own; the first node stands for it.
const HOST: &str = "node-0";

struct Scheduler {
    nodes: Objects<Node>,
    pods: Objects<Pod>,
    claims: Objects<PersistentVolumeClaim>,
    recorder: Recorder,
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|node| !node.is_empty())
}

impl Scheduler {
    fn reconcile(&self, pod_key: &Key) -> Outcome {
        let Some(pod) = self.pods.get(&pod_key.0, &pod_key.1) else { return Outcome::Done };
        let Some(spec) = &pod.spec else { return Outcome::Done };
        let ours = spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME;
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        if node_of(&pod).is_some() || pod.metadata.deletion_timestamp.is_some() || !ours || gated {
            return Outcome::Done;
        }
        let nodes = self.nodes.list(None);
        if let Some(reason) = self.unbound_claim(&pod, spec) {
            self.refuse(&pod, nodes.len(), &reason);
            return Outcome::Done;
        }
        let others = self.pods.list(None);
        match choose(&pod, &nodes, &others) {
            Ok(node) => self.bind(&pod, &node),
            Err(reasons) => {
                let mut listed: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
                listed.sort();
                self.refuse(&pod, nodes.len(), &listed.join(", "));
            }
        }
        Outcome::Done
    }

    /// Plugin VolumeBinding's pre-filter: nothing in this lab ever binds a claim, a person may.
    fn unbound_claim(&self, pod: &Pod, spec: &PodSpec) -> Option<String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let sources = spec.volumes.iter().flatten().filter_map(|volume| volume.persistent_volume_claim.as_ref());
        for source in sources {
            let Some(claim) = self.claims.get(namespace, &source.claim_name) else {
                return Some(format!("persistentvolumeclaim \"{}\" not found", source.claim_name));
            };
            if claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).is_none_or(str::is_empty) {
                return Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
        }
        None
    }

    fn bind(&self, pod: &Pod, node: &str) {
        let bound = self.pods.modify(&key(pod), |pod| {
            let spec = pod.spec.get_or_insert_default();
            if spec.node_name.as_deref().is_none_or(str::is_empty) {
                spec.node_name = Some(node.to_owned());
                set_scheduled(pod, "True", None, None);
            }
        });
        if bound.is_ok() {
            let (namespace, name) = key(pod);
            self.recorder.normal(&reference(pod), "Scheduled", format!("Successfully assigned {namespace}/{name} to {node}"));
        }
    }

    fn refuse(&self, pod: &Pod, nodes: usize, reasons: &str) {
        let message = if nodes == 0 {
            "no nodes available to schedule pods".to_owned()
        } else {
            format!(
                "0/{nodes} nodes are available: {reasons}. preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
            )
        };
        let known = super::pods::condition(pod, "PodScheduled").and_then(|c| c.message.clone());
        if known.as_ref() != Some(&message) {
            let _ = self.pods.modify(&key(pod), |pod| {
                pod.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".to_owned());
                set_scheduled(pod, "False", Some("Unschedulable"), Some(&message));
            });
            self.recorder.warning(&reference(pod), "FailedScheduling", message);
        }
    }
}

fn set_scheduled(pod: &mut Pod, status: &str, reason: Option<&str>, message: Option<&str>) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let unchanged_since = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == status);
    let last_transition_time = unchanged_since.and_then(|c| c.last_transition_time.clone()).or(Some(Time(Timestamp::now())));
    conditions.retain(|c| c.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message: message.map(str::to_owned),
        last_transition_time,
        ..PodCondition::default()
    });
}

/// The best node, or how many nodes were ruled out for which reason, in kube-scheduler's words.
fn choose(pod: &Pod, nodes: &[Arc<Node>], others: &[Arc<Pod>]) -> Result<String, BTreeMap<String, usize>> {
    let spec = pod.spec.clone().unwrap_or_default();
    let topology = labels_of(nodes);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(i64, String)> = None;
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        match unfit(pod, &spec, node, &topology, others) {
            Some(reason) => *reasons.entry(reason).or_default() += 1,
            None => {
                let score = score(pod, &spec, node, &topology, others);
                if best.as_ref().is_none_or(|(known, _)| score > *known) {
                    best = Some((score, name));
                }
            }
        }
    }
    best.map(|(_, name)| name).ok_or(reasons)
}

type Topology = BTreeMap<String, BTreeMap<String, String>>;

fn unfit(pod: &Pod, spec: &PodSpec, node: &Node, topology: &Topology, others: &[Arc<Pod>]) -> Option<String> {
    let node_spec = node.spec.clone().unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    if node_spec.unschedulable == Some(true) {
        let cordon = k8s_openapi::api::core::v1::Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Default::default()
        };
        if !tolerations.iter().any(|t| tolerates(t, &cordon)) {
            return Some("node(s) were unschedulable".to_owned());
        }
    }
    let hard = node_spec.taints.iter().flatten().filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute");
    for taint in hard {
        if !tolerations.iter().any(|t| tolerates(t, taint)) {
            let value = taint.value.as_deref().unwrap_or_default();
            return Some(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
        }
    }
    if !selects_node(spec, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    let affinity = spec.affinity.clone().unwrap_or_default();
    let anti = affinity.pod_anti_affinity.iter().flat_map(|a| a.required_during_scheduling_ignored_during_execution.iter().flatten());
    for term in anti {
        if peers(pod, term, node, topology, others) > 0 {
            return Some("node(s) didn't match pod anti-affinity rules".to_owned());
        }
    }
    let together = affinity.pod_affinity.iter().flat_map(|a| a.required_during_scheduling_ignored_during_execution.iter().flatten());
    for term in together {
        let first_of_its_kind =
            term_selects(term, pod, pod) && !others.iter().any(|other| is_placed(other) && term_selects(term, pod, other));
        if peers(pod, term, node, topology, others) == 0 && !first_of_its_kind {
            return Some("node(s) didn't match pod affinity rules".to_owned());
        }
    }
    port_conflict(spec, node, others).then(|| "node(s) didn't have free ports for the requested pod ports".to_owned())
}

/// Whether the pod's node selector and required node affinity choose the node.
pub(super) fn selects_node(spec: &PodSpec, node: &Node) -> bool {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let selected = spec.node_selector.as_ref().is_none_or(|selector| matches_map(selector, node.metadata.labels.as_ref()));
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

fn port_conflict(spec: &PodSpec, node: &Node, others: &[Arc<Pod>]) -> bool {
    let host_ports = |spec: &PodSpec| -> BTreeSet<i32> {
        spec.containers.iter().flat_map(|c| c.ports.iter().flatten()).filter_map(|p| p.host_port).collect()
    };
    let wanted = host_ports(spec);
    !wanted.is_empty()
        && others
            .iter()
            .filter(|other| node_of(other) == node.metadata.name.as_deref() && !is_finished(other))
            .filter_map(|other| other.spec.as_ref())
            .any(|other| !host_ports(other).is_disjoint(&wanted))
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let empty = term.match_expressions.as_ref().is_none_or(Vec::is_empty) && term.match_fields.as_ref().is_none_or(Vec::is_empty);
    let expressions = term
        .match_expressions
        .iter()
        .flatten()
        .all(|r| requirement_holds(&r.operator, r.values.as_deref().unwrap_or_default(), labels.and_then(|l| l.get(&r.key))));
    let fields = term.match_fields.iter().flatten().all(|r| {
        r.key == "metadata.name" && requirement_holds(&r.operator, r.values.as_deref().unwrap_or_default(), node.metadata.name.as_ref())
    });
    !empty && expressions && fields
}

fn is_placed(pod: &Pod) -> bool {
    node_of(pod).is_some() && !is_finished(pod)
}

/// Namespaces default to the pod's own; `namespaceSelector` would need Namespaces, an empty one means all.
fn term_selects(term: &PodAffinityTerm, pod: &Pod, other: &Pod) -> bool {
    let named = term.namespaces.as_deref().unwrap_or_default();
    let in_scope = if named.is_empty() {
        term.namespace_selector.is_some() || pod.metadata.namespace == other.metadata.namespace
    } else {
        other.metadata.namespace.as_ref().is_some_and(|n| named.contains(n))
    };
    in_scope && term.label_selector.as_ref().is_some_and(|selector| selectors::matches(selector, other.metadata.labels.as_ref()))
}

/// How many pods that the term selects are in the node's topology domain.
fn peers(pod: &Pod, term: &PodAffinityTerm, node: &Node, topology: &Topology, others: &[Arc<Pod>]) -> usize {
    let domain = |labels: &BTreeMap<String, String>, name: &str| {
        let own = || (term.topology_key == HOSTNAME).then(|| name.to_owned());
        labels.get(&term.topology_key).cloned().or_else(own)
    };
    let name = node.metadata.name.clone().unwrap_or_default();
    let Some(here) = topology.get(&name).and_then(|labels| domain(labels, &name)) else { return 0 };
    others
        .iter()
        .filter(|other| is_placed(other) && other.metadata.uid != pod.metadata.uid)
        .filter(|other| {
            let there = node_of(other).unwrap_or_default();
            topology.get(there).and_then(|labels| domain(labels, there)).as_ref() == Some(&here)
        })
        .filter(|other| term_selects(term, pod, other))
        .count()
}

/// Higher is better: preferences first, then few pods of the same owner, then few pods at all.
fn score(pod: &Pod, spec: &PodSpec, node: &Node, topology: &Topology, others: &[Arc<Pod>]) -> i64 {
    let affinity = spec.affinity.clone().unwrap_or_default();
    let mut preference = 0_i64;
    for preferred in affinity.node_affinity.iter().flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten()) {
        if term_matches(&preferred.preference, node) {
            preference += i64::from(preferred.weight);
        }
    }
    let weighted = |terms: &Option<Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm>>| -> i64 {
        let count = |term: &PodAffinityTerm| i64::try_from(peers(pod, term, node, topology, others)).unwrap_or(0);
        terms.iter().flatten().map(|t| i64::from(t.weight) * count(&t.pod_affinity_term)).sum()
    };
    preference += affinity.pod_affinity.as_ref().map_or(0, |a| weighted(&a.preferred_during_scheduling_ignored_during_execution));
    preference -= affinity.pod_anti_affinity.as_ref().map_or(0, |a| weighted(&a.preferred_during_scheduling_ignored_during_execution));
    let soft_taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten()).filter(|t| t.effect == "PreferNoSchedule");
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    preference -=
        10 * i64::try_from(soft_taints.filter(|t| !tolerations.iter().any(|toleration| tolerates(toleration, t))).count()).unwrap_or(0);
    let here: Vec<_> = others
        .iter()
        .filter(|other| is_placed(other) && other.metadata.deletion_timestamp.is_none() && node_of(other) == node.metadata.name.as_deref())
        .collect();
    let owner = controller_of(&pod.metadata).map(|o| &o.uid);
    let siblings = here.iter().filter(|other| owner.is_some() && controller_of(&other.metadata).map(|o| &o.uid) == owner).count();
    let crowd = i64::try_from(here.len()).unwrap_or(0);
    preference * 1_000_000 - i64::try_from(siblings).unwrap_or(0) * 10_000 - crowd
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, spec: Value) -> Arc<Node> {
        let labels = json!({HOSTNAME: name, "disk": if name == "b" { "ssd" } else { "hdd" }});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).expect("a Node"))
    }

    fn pod(name: &str, spec: Value) -> Arc<Pod> {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
        let metadata = json!({"name": name, "namespace": "n", "uid": name, "labels": {"app": "shop"}, "ownerReferences": owner});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a Pod"))
    }

    #[test]
    fn replicas_spread_over_nodes() {
        let nodes = [node("a", json!({})), node("b", json!({}))];
        let placed = [pod("p1", json!({"nodeName": "a"}))];
        assert_eq!(choose(&pod("p2", json!({})), &nodes, &placed), Ok("b".to_owned()));
    }

    #[test]
    fn selectors_and_affinity_decide() {
        let nodes = [node("a", json!({})), node("b", json!({}))];
        assert_eq!(choose(&pod("p", json!({"nodeSelector": {"disk": "ssd"}})), &nodes, &[]), Ok("b".to_owned()));
        let expressions = json!([{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]);
        let required = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}}});
        assert_eq!(choose(&pod("p", required), &nodes, &[]), Ok("a".to_owned()));
        let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
            [{"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}});
        let crowd = [pod("x", json!({"nodeName": "b"})), pod("y", json!({"nodeName": "b"}))];
        assert_eq!(choose(&pod("p", preferred), &nodes, &crowd), Ok("b".to_owned()));
    }

    #[test]
    fn anti_affinity_by_hostname_refuses_the_second_pod_of_a_node() {
        let anti = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": "shop"}}}]}}});
        let nodes = [node("a", json!({})), node("b", json!({}))];
        let one = [pod("p1", json!({"nodeName": "a"}))];
        assert_eq!(choose(&pod("p2", anti.clone()), &nodes, &one), Ok("b".to_owned()));
        let both = [pod("p1", json!({"nodeName": "a"})), pod("p2", json!({"nodeName": "b"}))];
        let reasons = choose(&pod("p3", anti), &nodes, &both).expect_err("no room");
        assert_eq!(reasons, [("node(s) didn't match pod anti-affinity rules".to_owned(), 2)].into());
    }

    #[test]
    fn cordons_and_taints_keep_pods_away() {
        let taint = json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]});
        let nodes = [node("a", json!({"unschedulable": true})), node("b", taint)];
        let reasons = choose(&pod("p", json!({})), &nodes, &[]).expect_err("no node");
        assert_eq!(reasons.len(), 2);
        let tolerant = json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]});
        assert_eq!(choose(&pod("p", tolerant), &nodes, &[]), Ok("b".to_owned()));
    }
}
