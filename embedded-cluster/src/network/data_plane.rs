//! The data plane as its users see it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ipnet::Ipv4Net;

use super::error::NetworkError;
use super::model::NetworkPlan;
use super::namespace_setup::{self, Role};
use super::netns::Netns;
use super::node::{Fabric, Node, PodLink, Removal};
use super::services::RenderedServices;
use super::wire::{Quality, Wire};

/// The addresses a cluster is laid out with.
#[derive(Clone, Debug)]
pub struct DataPlaneConfig {
    /// The control plane's address, reachable from every node and pod.
    pub fabric_address: Ipv4Addr,
    /// ClusterIPs; packets to those that no Service has are dropped.
    pub service_network: Ipv4Net,
}

impl Default for DataPlaneConfig {
    fn default() -> Self {
        Self { fabric_address: Ipv4Addr::new(172, 18, 0, 1), service_network: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16) }
    }
}

/// A pod's place in the network.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    pub netns: Netns,
    pub ip: Ipv4Addr,
    pub node: String,
}

/// The kernel's network as this cluster uses it; cheap to clone, everything in it vanishes with the process.
///
/// All methods may be called concurrently; the work is done off the executor's threads, one change at a time.
#[derive(Clone)]
pub struct DataPlane {
    inner: Arc<Inner>,
}

struct Inner {
    config: DataPlaneConfig,
    state: Mutex<State>,
    /// What can be looked up while a change is under way.
    handles: RwLock<Handles>,
    fabric: Netns,
}

struct State {
    fabric: Fabric,
    nodes: BTreeMap<String, Node>,
    plan: NetworkPlan,
    services: RenderedServices,
    wire: Option<Wire>,
    pods: BTreeMap<String, (String, PodLink)>,
}

#[derive(Default)]
struct Handles {
    nodes: BTreeMap<String, Netns>,
    pods: BTreeMap<String, PodNetwork>,
}

impl DataPlane {
    /// Makes the fabric: the namespace that joins all nodes and that the control plane listens in.
    pub async fn new(config: DataPlaneConfig) -> Result<Self, NetworkError> {
        off_executor("make the fabric", move || {
            let fabric = Fabric::create(config.fabric_address)?;
            let netns = fabric.netns.clone();
            let state = Mutex::new(State {
                fabric,
                nodes: BTreeMap::new(),
                plan: NetworkPlan::default(),
                services: RenderedServices::default(),
                wire: None,
                pods: BTreeMap::new(),
            });
            Ok(Self { inner: Arc::new(Inner { config, state, handles: RwLock::default(), fabric: netns }) })
        })
        .await
    }

    /// Adds a node's namespace, joined to the fabric and routed; `pods` is the range its pods get addresses from.
    pub async fn add_node(&self, name: &str, address: Ipv4Addr, pods: Ipv4Net) -> Result<Netns, NetworkError> {
        let name = name.to_owned();
        self.change("add a node", move |inner| inner.add_node(&name, address, pods)).await
    }

    /// Takes a node and all its pods off the network. Unknown nodes are no error.
    pub async fn remove_node(&self, name: &str) -> Result<(), NetworkError> {
        let name = name.to_owned();
        self.change("remove a node", move |inner| inner.remove_node(&name)).await
    }

    /// Makes the pod's namespace, joined to its node. For a pod that is attached there already, gives what it has.
    pub async fn attach_pod(&self, node: &str, pod_uid: &str) -> Result<PodNetwork, NetworkError> {
        let (node, pod_uid) = (node.to_owned(), pod_uid.to_owned());
        self.change("attach a pod", move |inner| inner.attach_pod(&node, &pod_uid)).await
    }

    /// Takes the pod off the network at once, also when processes still hold its namespace. Unknown pods are no error.
    pub async fn detach_pod(&self, pod_uid: &str) -> Result<(), NetworkError> {
        let pod_uid = pod_uid.to_owned();
        self.change("detach a pod", move |inner| inner.detach_pod(&pod_uid)).await
    }

    /// Makes Services, policies and links what `plan` says. Only differences to the last plan are sent to the kernel, as
    /// one atomic change per node; on an error nothing of that node has changed. Idempotent.
    pub async fn apply(&self, plan: &NetworkPlan) -> Result<(), NetworkError> {
        let plan = plan.clone();
        self.change("apply the network plan", move |inner| inner.apply(plan)).await
    }

    /// The control plane's namespace, with the fabric address.
    pub fn fabric(&self) -> Netns {
        self.inner.fabric.clone()
    }

    /// A node's namespace.
    pub fn node(&self, name: &str) -> Option<Netns> {
        read(&self.inner.handles).nodes.get(name).cloned()
    }

    /// An attached pod.
    pub fn pod(&self, pod_uid: &str) -> Option<PodNetwork> {
        read(&self.inner.handles).pods.get(pod_uid).cloned()
    }

    async fn change<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let inner = Arc::clone(&self.inner);
        off_executor(action, move || work(&inner)).await
    }
}

impl Inner {
    fn add_node(&self, name: &str, address: Ipv4Addr, pods: Ipv4Net) -> Result<Netns, NetworkError> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        if state.nodes.contains_key(name) {
            return Err(NetworkError::NodeExists(name.to_owned()));
        }
        if address == self.config.fabric_address || state.nodes.values().any(|node| node.address == address) {
            return Err(NetworkError::AddressInUse(address));
        }
        if let Some(node) = state.nodes.values().find(|node| node.pods.contains(&pods) || pods.contains(&node.pods)) {
            return Err(NetworkError::AddressInUse(node.pods.network()));
        }
        let mut node = Node::join(&mut state.fabric, name, address, pods)?;
        let quality = quality_of(&state.plan, name)?;
        let prepared = node
            .apply(&self.config, &state.plan, &state.services)
            .and_then(|()| node.set_quality(quality, &mut state.fabric, &mut state.wire));
        if let Err(error) = prepared {
            node.leave(&mut state.fabric, &mut state.wire)?;
            return Err(error);
        }
        let netns = node.netns.clone();
        state.nodes.insert(name.to_owned(), node);
        write(&self.handles).nodes.insert(name.to_owned(), netns.clone());
        Ok(netns)
    }

    fn remove_node(&self, name: &str) -> Result<(), NetworkError> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let Some(mut node) = state.nodes.remove(name) else { return Ok(()) };
        {
            let mut handles = write(&self.handles);
            handles.nodes.remove(name);
            handles.pods.retain(|_, pod| pod.node != name);
        }
        let (gone, left): (BTreeMap<_, _>, _) = std::mem::take(&mut state.pods).into_iter().partition(|(_, (on, _))| on == name);
        state.pods = left;
        for (_, link) in gone.values() {
            node.detach(link)?.finish()?;
        }
        node.leave(&mut state.fabric, &mut state.wire)
    }

    fn attach_pod(&self, node_name: &str, pod_uid: &str) -> Result<PodNetwork, NetworkError> {
        if let Some(attached) = self.attached(node_name, pod_uid)? {
            return Ok(attached);
        }
        // The namespace is made before the lock is taken: that is the slow part, and pods start many at a time.
        let (netns, mut route) = namespace_setup::create(&format!("pod-{pod_uid}"), Role::Host)?;
        let mut state = lock(&self.state);
        if let Some(attached) = self.attached(node_name, pod_uid)? {
            return Ok(attached);
        }
        let node = state.nodes.get_mut(node_name).ok_or_else(|| NetworkError::UnknownNode(node_name.to_owned()))?;
        let link = node.attach(&netns, &mut route)?;
        let pod = PodNetwork { netns, ip: link.address, node: node_name.to_owned() };
        state.pods.insert(pod_uid.to_owned(), (node_name.to_owned(), link));
        write(&self.handles).pods.insert(pod_uid.to_owned(), pod.clone());
        Ok(pod)
    }

    fn apply(&self, plan: NetworkPlan) -> Result<(), NetworkError> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        for link in &plan.links {
            quality_of(&plan, &link.node)?;
        }
        state.services.update(&plan.services);
        state.plan = plan;
        // One node's failure is no reason to leave the others behind.
        let mut outcome = Ok(());
        for (name, node) in &mut state.nodes {
            let applied = node
                .apply(&self.config, &state.plan, &state.services)
                .and_then(|()| node.set_quality(quality_of(&state.plan, name)?, &mut state.fabric, &mut state.wire));
            outcome = outcome.and(applied);
        }
        outcome
    }

    fn attached(&self, node: &str, pod_uid: &str) -> Result<Option<PodNetwork>, NetworkError> {
        match read(&self.handles).pods.get(pod_uid) {
            Some(pod) if pod.node != node => Err(NetworkError::AttachedElsewhere { pod_uid: pod_uid.to_owned(), node: pod.node.clone() }),
            found => Ok(found.cloned()),
        }
    }

    fn detach_pod(&self, pod_uid: &str) -> Result<(), NetworkError> {
        let removal = {
            let mut state = lock(&self.state);
            write(&self.handles).pods.remove(pod_uid);
            let Some((node, link)) = state.pods.remove(pod_uid) else { return Ok(()) };
            state.nodes.get_mut(&node).map(|node| node.detach(&link)).transpose()?
        };
        removal.map_or(Ok(()), Removal::finish)
    }
}

fn quality_of(plan: &NetworkPlan, node: &str) -> Result<Quality, NetworkError> {
    let Some(link) = plan.links.iter().find(|link| link.node == node) else { return Ok(Quality::default()) };
    if !(0.0..=1.0).contains(&link.loss) {
        return Err(NetworkError::Unsupported(format!(
            "a loss of {} on the link of node \"{node}\"; it is a share from 0 to 1",
            link.loss
        )));
    }
    Ok(Quality { latency: link.latency, loss: link.loss })
}

/// Runs work that blocks for milliseconds where it keeps no task waiting.
async fn off_executor<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| NetworkError::ThreadLost { action: action.to_owned() })?
}

// A panic while one of these was held leaves values that are valid on their own; going on is better than failing all.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
