//! A scenario as it stands in its file.

use std::collections::BTreeMap;

use super::decode::{Spanned, choice, element};
use super::expect::{ClientExpectation, Expect, ObjectExpectation, ObjectName};
use super::probe::ProbeSpec;
use super::time::{Literal, Scaled, Time};

element! {
    /// One fault, proven three times over: healthy before, the documented signature while broken, healthy after the fix.
    pub struct Scenario ("a scenario") {
        /// Version of this format: 1.
        pub schema: Spanned<u32>,
        /// Name of its folder.
        pub id: Spanned<String>,
        pub title: Spanned<String>,
        pub level: Level,
        #[serde(default)]
        pub tags: Vec<Spanned<String>>,
        /// What a trainee is told: symptoms only, never the cause.
        pub story: Spanned<String>,
        /// Folder under `scenarios/_apps` with the healthy manifests.
        pub app: Spanned<String>,
        pub cluster: Option<ClusterNeeds>,
        /// Scaled times by name, beside those of `gateway`: `backend-latency: { lab: 3s, production: 90s }`. Text in objects
        /// uses them as `${backend-latency}`, times in this file as `$backend-latency`.
        #[serde(default)]
        pub times: BTreeMap<String, Spanned<Scaled>>,
        /// Settings in the gateways' common vocabulary. `{ lab: …, production: … }` is a scaled time by the setting's name.
        #[schemars(with = "Option<std::collections::BTreeMap<String, serde_json::Value>>")]
        pub gateway: Option<Spanned<GatewaySettings>>,
        /// What this scenario changes about the app before the first control: part of the healthy state.
        pub setup: Option<Spanned<Change>>,
        pub fault: Spanned<Change>,
        /// What is sent, by name. One probe runs after the other, in the order of their names, unless `together` is set.
        pub probes: BTreeMap<String, Spanned<ProbeSpec>>,
        /// Must hold before the fault and again after the fix, by probe.
        pub healthy: BTreeMap<String, Spanned<ClientExpectation>>,
        /// Must hold while the fault is in, and not before.
        pub expect: Spanned<Expect>,
        /// Scenarios that look alike, and how to tell them apart.
        #[serde(default)]
        pub confusable_with: BTreeMap<String, Spanned<String>>,
        /// What a diagnosis is graded against.
        pub cause: Cause,
        pub explain: Spanned<String>,
        /// In order, each gives a little more away.
        #[serde(default)]
        pub hints: Vec<Spanned<String>>,
        pub fix: Spanned<Fix>,
        /// Documents that describe this fault.
        #[serde(default)]
        pub references: Vec<String>,
    }
}

choice! {
    /// How much a trainee has to know.
    pub enum Level ("a level") { Beginner, Intermediate, Advanced }
}

element! {
    /// What the cluster has to be like.
    pub struct ClusterNeeds ("cluster") {
        /// Without it: 2.
        pub nodes: Option<Spanned<u32>>,
        /// One-way delay of each node's link, so that a packet between two nodes takes twice as long.
        pub link_latency: Option<Literal>,
        /// Percentage of packets that each node's link loses.
        pub link_loss: Option<f64>,
        /// How long a node may be silent before the control plane takes it for lost (`--node-monitor-grace-period`).
        pub node_grace: Option<Scaled>,
        /// What not every provider can do. Where one is lacking the scenario is skipped with the reason.
        #[serde(default)]
        pub needs: Vec<Need>,
    }
}

choice! {
    /// An ability of a cluster that not every provider has.
    pub enum Need ("an ability of a cluster") {
        /// Links whose delay and loss can be set.
        LinkLatency,
        /// A cluster DNS that can be moved to another node.
        MovableDns,
        /// Nodes that can be cut off: alone with their pods, or altogether, so that the cluster misses them.
        NodeCut,
        /// A network that enforces NetworkPolicy.
        NetworkPolicy,
        /// A network that enforces NetworkPolicy from a pod's first packet on.
        PolicyFromStart,
        /// Init containers that may change their pod's packet filter.
        PacketRedirect,
        /// At least two nodes that pods are spread over.
        SeveralNodes,
        /// Containers that are started with a memory limit of a few MiB, less than what starts them would need.
        TinyMemoryLimits,
    }
}

element! {
    /// A change of the cluster, made in this order: apply, patch, delete, links, restart; then waiting until it has settled.
    pub struct Change ("a change") {
        /// Whole objects, as `kubectl apply` takes them.
        #[serde(default)]
        pub apply: Vec<Spanned<serde_json::Value>>,
        /// Partial objects, merged as `kubectl patch` merges them: strategic for built-in kinds, JSON merge for others.
        #[serde(default)]
        pub patch: Vec<Spanned<serde_json::Value>>,
        /// Objects by `Kind/name`.
        #[serde(default)]
        pub delete: Vec<Spanned<ObjectName>>,
        /// Objects by `Kind/name`, as `kubectl delete --force --grace-period=0` deletes them: without waiting for any kubelet.
        #[serde(default)]
        pub force_delete: Vec<Spanned<ObjectName>>,
        /// Links of nodes.
        #[serde(default)]
        pub links: Vec<Spanned<LinkChange>>,
        /// Workloads that are restarted as `kubectl rollout restart` does it.
        #[serde(default)]
        pub restart: Vec<Spanned<ObjectName>>,
        pub settle: Option<Settle>,
    }
}

element! {
    /// The documented repair.
    pub struct Fix ("fix") {
        /// In words, as a colleague would say it.
        pub say: Spanned<String>,
        #[serde(default)]
        pub apply: Vec<Spanned<serde_json::Value>>,
        #[serde(default)]
        pub patch: Vec<Spanned<serde_json::Value>>,
        #[serde(default)]
        pub delete: Vec<Spanned<ObjectName>>,
        #[serde(default)]
        pub force_delete: Vec<Spanned<ObjectName>>,
        #[serde(default)]
        pub links: Vec<Spanned<LinkChange>>,
        #[serde(default)]
        pub restart: Vec<Spanned<ObjectName>>,
        pub settle: Option<Settle>,
    }
}

impl Fix {
    pub fn change(&self) -> Change {
        Change {
            apply: self.apply.clone(),
            patch: self.patch.clone(),
            delete: self.delete.clone(),
            force_delete: self.force_delete.clone(),
            links: self.links.clone(),
            restart: self.restart.clone(),
            settle: self.settle.clone(),
        }
    }
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.apply.is_empty()
            && self.patch.is_empty()
            && self.delete.is_empty()
            && self.force_delete.is_empty()
            && self.links.is_empty()
            && self.restart.is_empty()
    }
}

element! {
    /// The link of the nodes that run the selected pods.
    pub struct LinkChange ("a link change") {
        /// Pods by their labels; their nodes are meant.
        pub node_of: BTreeMap<String, String>,
        /// At most so many of these nodes, by name. Without it: all.
        pub nodes: Option<u32>,
        pub latency: Option<Time>,
        /// Percentage of packets lost; 100 cuts the link.
        pub loss: Option<f64>,
        /// Whether pods of the node are reached from other nodes; the node itself is, either way.
        pub pod_network: Option<PodNetwork>,
    }
}

choice! {
    /// The state of a node's pod network, as a CNI plugin keeps it.
    pub enum PodNetwork ("a state of the pod network") { Up, Down }
}

element! {
    /// When a change has taken effect. Always bounded.
    pub struct Settle ("settle") {
        /// Without it: 30s.
        pub within: Option<Time>,
        /// Go on at once, without waiting for rollouts: for changes after which a rollout never completes.
        #[serde(default)]
        pub without_rollouts: bool,
        /// Do not wait until pods that are on their way out have gone: what is new is there.
        #[serde(default)]
        pub without_terminating: bool,
        /// Go on without waiting until the gateway's running configuration shows the objects.
        #[serde(default)]
        pub without_gateway: bool,
        /// What has to be seen in the cluster as well.
        #[serde(default)]
        pub until: Vec<Spanned<ObjectExpectation>>,
    }
}

element! {
    /// What is broken, for grading a diagnosis.
    pub struct Cause ("cause") {
        pub layer: Layer,
        /// `Kind/name`.
        pub object: Spanned<ObjectName>,
        /// Path of the field that is wrong.
        pub field: Option<Spanned<String>>,
    }
}

choice! {
    /// Where on the path of a request the cause lies.
    pub enum Layer ("a layer") {
        Client, Dns, Gateway, Ingress, Routing, Service, Endpoints, Protocol, Tls, Time, Connection, Network, Policy, Pod, Application,
        Rollout, Sidecar, Mesh, Node, Dependency,
    }
}

/// Settings by name, each as written.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct GatewaySettings(pub BTreeMap<String, Spanned<Setting>>);

/// The value of one setting.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Setting {
    Scaled(Scaled),
    Plain(serde_json::Value),
}

impl super::decode::Decode for GatewaySettings {
    fn decode(node: &super::yaml::Node, problems: &mut super::problem::Problems) -> Option<Self> {
        BTreeMap::decode(node, problems).map(GatewaySettings)
    }
}

impl super::decode::Decode for Setting {
    fn decode(node: &super::yaml::Node, problems: &mut super::problem::Problems) -> Option<Self> {
        if node.get("lab").is_some() || node.get("production").is_some() {
            return Scaled::decode(node, problems).map(Setting::Scaled);
        }
        Some(Setting::Plain(node.to_json()))
    }
}
