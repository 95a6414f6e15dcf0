//! One node: registers itself, then gives every pod bound to it a worker of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo, Pod, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::back_off::BackOffLimits;
use super::quantity;
use super::worker::{Message, Worker};
use crate::controllers::events::{Recorder, reference};
use crate::controllers::objects::{Objects, key_of};
use crate::controllers::reconcile::follow;
use crate::runtime::ContainerRuntime;
use crate::store::{Store, WatchEvent};

/// The Kubernetes version that nodes report.
pub(super) const KUBELET_VERSION: &str = "v1.33.4";

/// Makes the token that a pod's service account is known by: `Fn(namespace, service_account) -> token`.
pub type TokenIssuer = Arc<dyn Fn(&str, &str) -> String + Send + Sync>;

/// What all nodes of a cluster share.
#[derive(Clone)]
pub struct KubeletSettings {
    /// Pod volumes and container logs live in `<state_dir>/pods`, the nodes' own files in `<state_dir>/nodes`.
    pub state_dir: PathBuf,
    pub token_issuer: TokenIssuer,
    /// PEM, mounted beside the service account token.
    pub ca_certificate: String,
    /// Address of the Service `kube-dns`.
    pub cluster_dns: Ipv4Addr,
    /// `cluster.local`.
    pub cluster_domain: String,
    pub back_off: BackOffLimits,
}

/// Who a node is.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    pub name: String,
    /// InternalIP.
    pub address: Ipv4Addr,
    pub pod_cidr: Ipv4Net,
    /// Added to the well-known ones (hostname, os, arch).
    pub labels: Vec<(String, String)>,
}

/// The kubelet of one node.
pub struct Kubelet {
    pub(super) store: Store,
    pub(super) node: NodeIdentity,
    pub(super) settings: KubeletSettings,
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) recorder: Recorder,
    pub(super) pods: Objects<Pod>,
    pub(super) config_maps: Objects<ConfigMap>,
    pub(super) secrets: Objects<Secret>,
    pub(super) services: Objects<Service>,
    pub(super) accounts: Objects<ServiceAccount>,
    /// Workers by pod uid.
    workers: Mutex<BTreeMap<String, WorkerHandle>>,
}

struct WorkerHandle {
    namespace: String,
    inbox: UnboundedSender<Message>,
}

impl Kubelet {
    pub fn new(store: &Store, node: NodeIdentity, settings: KubeletSettings, runtime: Arc<dyn ContainerRuntime>) -> Arc<Self> {
        Arc::new(Self {
            recorder: Recorder::new(store, "kubelet", Some(node.name.clone())),
            pods: Objects::new(store),
            config_maps: Objects::new(store),
            secrets: Objects::new(store),
            services: Objects::new(store),
            accounts: Objects::new(store),
            workers: Mutex::default(),
            store: store.clone(),
            node,
            settings,
            runtime,
        })
    }

    /// Creates the Node object (Ready) and follows the pods bound to it until the handle is aborted.
    pub fn spawn(self: &Arc<Self>) -> JoinHandle<()> {
        self.register();
        tokio::spawn(self.clone().follow_pods())
    }

    async fn follow_pods(self: Arc<Self>) {
        let mut pods = follow(self.store.clone(), self.pods.resource().clone());
        let maps = follow(self.store.clone(), self.config_maps.resource().clone());
        let secrets = follow(self.store.clone(), self.secrets.resource().clone());
        let mut sources = futures::stream::select(maps, secrets);
        loop {
            tokio::select! {
                event = pods.next() => match event {
                    Some(event) => self.pod_event(&event),
                    None => return,
                },
                Some(event) = sources.next() => {
                    let (namespace, _) = key_of(event.object());
                    for worker in self.lock().values().filter(|w| w.namespace == namespace) {
                        let _ = worker.inbox.send(Message::SourcesChanged);
                    }
                }
            }
        }
    }

    fn pod_event(self: &Arc<Self>, event: &WatchEvent) {
        let object = event.object();
        if object["spec"]["nodeName"] != self.node.name.as_str() {
            return;
        }
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let mut workers = self.lock();
        match event {
            WatchEvent::Deleted(_) => {
                if let Some(worker) = workers.remove(&uid) {
                    let _ = worker.inbox.send(Message::Pod(None));
                }
            }
            WatchEvent::Added(_) | WatchEvent::Modified(_) => {
                let (namespace, name) = key_of(object);
                // The newest version, not the event's: the worker's own writes come back here.
                let Some(pod) = self.pods.get(&namespace, &name).filter(|pod| pod.metadata.uid.as_deref() == Some(&uid)) else { return };
                if let Some(worker) = workers.get(&uid) {
                    let _ = worker.inbox.send(Message::Pod(Some(pod)));
                } else {
                    let (worker, inbox) = Worker::new(self.clone(), pod);
                    workers.insert(uid, WorkerHandle { namespace, inbox });
                    tokio::spawn(worker.run());
                }
            }
        }
    }

    /// The worker of a pod, to ask it about its containers.
    pub(super) fn worker(&self, uid: &str) -> Option<UnboundedSender<Message>> {
        self.lock().get(uid).map(|worker| worker.inbox.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, WorkerHandle>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) {
        let nodes: Objects<Node> = Objects::new(&self.store);
        match nodes.create("", &self.node_object()) {
            Ok(node) => {
                let about = reference(&*node);
                self.recorder.normal(&about, "Starting", "Starting kubelet.");
                self.recorder.normal(&about, "NodeReady", format!("Node {} status is now: NodeReady", self.node.name));
            }
            Err(fault) => tracing::warn!(%fault, "the node is registered already; its object stays as it is"),
        }
    }

    fn node_object(&self) -> Node {
        let name = self.node.name.clone();
        let now = Time(Timestamp::now());
        let condition = |kind: &str, status: &str, reason: &str, message: &str| NodeCondition {
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
        let amounts = [
            ("cpu", format!("{}", quantity::NODE_CPUS)),
            ("memory", format!("{}Ki", quantity::NODE_MEMORY / 1024.0)),
            ("pods", "110".to_owned()),
            ("ephemeral-storage", "10Gi".to_owned()),
        ];
        let capacity: BTreeMap<String, Quantity> = amounts.map(|(k, v)| (k.to_owned(), Quantity(v))).into();
        let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
        Node {
            metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() },
            spec: Some(NodeSpec {
                pod_cidr: Some(self.node.pod_cidr.to_string()),
                pod_cidrs: Some(vec![self.node.pod_cidr.to_string()]),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                addresses: Some(vec![address("InternalIP", self.node.address.to_string()), address("Hostname", name)]),
                capacity: Some(capacity.clone()),
                allocatable: Some(capacity),
                conditions: Some(vec![
                    condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                    condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                    condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                    condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
                ]),
                daemon_endpoints: Some(NodeDaemonEndpoints::default()),
                node_info: Some(NodeSystemInfo {
                    architecture: arch.to_owned(),
                    operating_system: "linux".to_owned(),
                    kubelet_version: KUBELET_VERSION.to_owned(),
                    kube_proxy_version: KUBELET_VERSION.to_owned(),
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
