//! What a node says of itself: its registration, its conditions, and the events that go with them
//! (`kubelet_node_status.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo, ObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::node::Kubelet;
use super::quantity;
use crate::controllers::reconcile::follow;

/// The Kubernetes version that nodes report.
pub(super) const KUBELET_VERSION: &str = "v1.33.4";

/// Where a kubelet listens.
const KUBELET_PORT: i32 = 10250;

/// Type, status while all is well, reason, message.
const CONDITIONS: [(&str, &str, &str, &str); 4] = [
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
];
/// At most this long after the link is back the node says that it is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

impl Kubelet {
    /// Events about a node carry its name as its uid, as the kubelet has always written them.
    fn about_node(&self) -> ObjectReference {
        ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node.name.clone()),
            uid: Some(self.node.name.clone()),
            ..ObjectReference::default()
        }
    }

    /// The uid of the Node object.
    pub(super) fn register(&self) -> String {
        match self.nodes.create("", &self.node_object()) {
            Ok(node) => {
                let about = self.about_node();
                let name = &self.node.name;
                self.recorder.normal(&about, "Starting", "Starting kubelet.");
                for reason in ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"] {
                    self.recorder.normal(&about, reason, format!("Node {name} status is now: {reason}"));
                }
                self.recorder.normal(&about, "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods");
                self.recorder.normal(&about, "NodeReady", format!("Node {name} status is now: NodeReady"));
                node.metadata.uid.clone().unwrap_or_default()
            }
            Err(fault) => {
                tracing::warn!(%fault, "the node is registered already; its object stays as it is");
                let node = self.nodes.get("", &self.node.name);
                node.and_then(|node| node.metadata.uid.clone()).unwrap_or_default()
            }
        }
    }

    /// Puts right what the control plane said of this node while nobody heard from it, and tells of cordons.
    pub(super) async fn keep_status(&self) {
        use futures::StreamExt;
        let mut nodes = follow(self.store.clone(), self.nodes.resource().clone());
        let mut unschedulable = false;
        let mut lost = false;
        loop {
            tokio::select! {
                event = nodes.next() => {
                    let Some(event) = event else { return };
                    if event.object()["metadata"]["name"] != self.node.name.as_str() {
                        continue;
                    }
                }
                () = tokio::time::sleep(LOOK_AGAIN), if lost => {}
            }
            let Some(node) = self.nodes.get("", &self.node.name) else { continue };
            let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
            lost = conditions.into_iter().any(|condition| condition.status == "Unknown");
            if lost && self.link.is_up() {
                self.report_ready();
                lost = false;
            }
            let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
            if cordoned != unschedulable && self.link.is_up() {
                unschedulable = cordoned;
                let reason = if cordoned { "NodeNotSchedulable" } else { "NodeSchedulable" };
                self.recorder.normal(&self.about_node(), reason, format!("Node {} status is now: {reason}", self.node.name));
            }
        }
    }

    fn report_ready(&self) {
        let name = &self.node.name;
        let now = now();
        let written = self.nodes.modify(&(String::new(), name.clone()), |node| {
            let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
            for condition in conditions.iter_mut().filter(|condition| condition.status == "Unknown") {
                if let Some((_, status, reason, message)) = CONDITIONS.iter().find(|(kind, ..)| *kind == condition.type_) {
                    condition.status = (*status).to_owned();
                    condition.reason = Some((*reason).to_owned());
                    condition.message = Some((*message).to_owned());
                    condition.last_heartbeat_time = Some(now.clone());
                    condition.last_transition_time = Some(now.clone());
                }
            }
        });
        match written {
            Ok(_) => self.recorder.normal(&self.about_node(), "NodeReady", format!("Node {name} status is now: NodeReady")),
            Err(fault) => tracing::debug!(%fault, "the node's conditions were not written"),
        }
    }

    fn node_object(&self) -> Node {
        let name = self.node.name.clone();
        let now = now();
        let condition = |(kind, status, reason, message): (&str, &str, &str, &str)| NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(now.clone()),
        };
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let well_known = [
            ("kubernetes.io/hostname", name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ];
        let mut labels: BTreeMap<String, String> = well_known.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        labels.extend(self.node.labels.iter().cloned());
        let annotations = [("node.alpha.kubernetes.io/ttl", "0"), ("volumes.kubernetes.io/controller-managed-attach-detach", "true")];
        let annotations = annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let amounts = [
            ("cpu", format!("{}", quantity::NODE_CPUS)),
            ("memory", format!("{}Ki", quantity::NODE_MEMORY / 1024.0)),
            ("pods", "110".to_owned()),
            ("ephemeral-storage", "10Gi".to_owned()),
        ];
        let capacity: BTreeMap<String, Quantity> = amounts.map(|(k, v)| (k.to_owned(), Quantity(v))).into();
        let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
        Node {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: Some(self.node.pod_cidr.to_string()),
                pod_cidrs: Some(vec![self.node.pod_cidr.to_string()]),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                addresses: Some(vec![address("InternalIP", self.node.address.to_string()), address("Hostname", name)]),
                capacity: Some(capacity.clone()),
                allocatable: Some(capacity),
                conditions: Some(CONDITIONS.map(condition).to_vec()),
                daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: KUBELET_PORT }) }),
                node_info: Some(NodeSystemInfo {
                    architecture: arch.to_owned(),
                    operating_system: "linux".to_owned(),
                    kubelet_version: KUBELET_VERSION.to_owned(),
                    // Never true, and empty since 1.33.
                    kube_proxy_version: String::new(),
                    container_runtime_version: format!("gatelab://{}", env!("CARGO_PKG_VERSION")),
                    kernel_version: read_line("/proc/sys/kernel/osrelease"),
                    boot_id: read_line("/proc/sys/kernel/random/boot_id"),
                    os_image: "gatelab".to_owned(),
                    machine_id: uuid::Uuid::new_v4().simple().to_string(),
                    system_uuid: uuid::Uuid::new_v4().to_string(),
                    ..NodeSystemInfo::default()
                }),
                ..NodeStatus::default()
            }),
        }
    }
}

fn read_line(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn now() -> Time {
    Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default())
}
