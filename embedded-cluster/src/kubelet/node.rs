//! One node: registers itself, then gives every pod bound to it a worker of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{FutureExt, StreamExt};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::api_link::{ApiConnection, ApiLink};
use super::back_off::BackOffLimits;
use super::worker::{Message, Worker};
use crate::controllers::events::Recorder;
use crate::controllers::objects::{Objects, key_of};
use crate::controllers::reconcile::follow;
use crate::runtime::ContainerRuntime;
use crate::store::{Store, WatchEvent};

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
    /// `None`: the API is always within reach, and nobody renews a Lease.
    pub api: Option<ApiConnection>,
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
    pub(super) link: ApiLink,
    pub(super) nodes: Objects<Node>,
    pub(super) pods: Objects<Pod>,
    pub(super) config_maps: Objects<ConfigMap>,
    pub(super) secrets: Objects<Secret>,
    pub(super) services: Objects<Service>,
    /// Workers by pod uid.
    workers: Mutex<BTreeMap<String, WorkerHandle>>,
}

struct WorkerHandle {
    namespace: String,
    name: String,
    inbox: UnboundedSender<Message>,
}

impl Kubelet {
    pub fn new(store: &Store, node: NodeIdentity, settings: KubeletSettings, runtime: Arc<dyn ContainerRuntime>) -> Arc<Self> {
        Arc::new(Self {
            recorder: Recorder::new(store, "kubelet", Some(node.name.clone())),
            link: ApiLink::new(&node.name, settings.api.clone()),
            nodes: Objects::new(store),
            pods: Objects::new(store),
            config_maps: Objects::new(store),
            secrets: Objects::new(store),
            services: Objects::new(store),
            workers: Mutex::default(),
            store: store.clone(),
            node,
            settings,
            runtime,
        })
    }

    /// Creates the Node object (Ready), renews its Lease and follows the pods bound to it until the handle is aborted.
    pub fn spawn(self: &Arc<Self>) -> JoinHandle<()> {
        let uid = self.register();
        let kubelet = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = kubelet.clone().follow_pods() => {}
                () = kubelet.link.keep_lease(&uid) => {}
                () = kubelet.keep_status() => {}
            }
        })
    }

    async fn follow_pods(self: Arc<Self>) {
        let mut pods = follow(self.store.clone(), self.pods.resource().clone());
        let maps = follow(self.store.clone(), self.config_maps.resource().clone());
        let secrets = follow(self.store.clone(), self.secrets.resource().clone());
        let mut sources = futures::stream::select(maps, secrets);
        let mut link = self.link.changes();
        let mut outages = 0;
        loop {
            tokio::select! {
                event = pods.next() => {
                    let Some(event) = event else { return };
                    let mut events = vec![event];
                    while let Some(Some(event)) = pods.next().now_or_never() {
                        events.push(event);
                    }
                    events.retain(|event| event.object()["spec"]["nodeName"] == self.node.name.as_str());
                    if events.is_empty() {
                        continue;
                    }
                    // Whatever happened is news to this node only when it can be told.
                    self.link.confirm().await;
                    events.iter().for_each(|event| self.pod_event(event));
                }
                Some(event) = sources.next() => {
                    let (namespace, _) = key_of(event.object());
                    for worker in self.lock().values().filter(|w| w.namespace == namespace) {
                        let _ = worker.inbox.send(Message::SourcesChanged);
                    }
                }
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let state = *link.borrow_and_update();
                    if state.up && state.outages != outages {
                        outages = state.outages;
                        self.reconnected();
                    }
                }
            }
        }
    }

    /// After a time without the API: what is gone there ends here, and every pod reports itself anew.
    fn reconnected(&self) {
        self.lock().retain(|uid, worker| {
            let here = self.pods.get(&worker.namespace, &worker.name).is_some_and(|pod| pod.metadata.uid.as_deref() == Some(uid));
            let _ = worker.inbox.send(if here { Message::Reconnected } else { Message::Pod(None) });
            here
        });
    }

    fn pod_event(self: &Arc<Self>, event: &WatchEvent) {
        let object = event.object();
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
                    workers.insert(uid, WorkerHandle { namespace, name, inbox });
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
}
