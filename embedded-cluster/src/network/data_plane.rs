//! The data plane as its users see it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::error::NetworkError;
use super::model::NetworkPlan;
use super::netns::Netns;

/// The addresses a cluster is laid out with.
#[derive(Clone, Debug)]
pub struct DataPlaneConfig {
    /// The control plane's address, reachable from every node and pod.
    pub fabric_address: Ipv4Addr,
    /// Holds the pod ranges of all nodes; traffic to Services from elsewhere is masqueraded.
    pub pod_network: Ipv4Net,
    /// ClusterIPs; packets to those that no Service has are dropped.
    pub service_network: Ipv4Net,
}

impl Default for DataPlaneConfig {
    fn default() -> Self {
        Self {
            fabric_address: Ipv4Addr::new(172, 18, 0, 1),
            pod_network: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16),
            service_network: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
        }
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
    fabric: Netns,
}

impl DataPlane {
    /// Makes the fabric: the namespace that joins all nodes and that the control plane listens in.
    pub async fn new(config: DataPlaneConfig) -> Result<Self, NetworkError> {
        let _ = config;
        let fabric = Netns::create("fabric")?;
        Ok(Self { inner: Arc::new(Inner { fabric }) })
    }

    /// Adds a node's namespace, joined to the fabric and routed; `pods` is the range its pods get addresses from.
    pub async fn add_node(&self, name: &str, address: Ipv4Addr, pods: Ipv4Net) -> Result<Netns, NetworkError> {
        let _ = (address, pods);
        Err(NetworkError::UnknownNode(name.to_owned()))
    }

    /// Takes a node and all its pods off the network. Unknown nodes are no error.
    pub async fn remove_node(&self, name: &str) -> Result<(), NetworkError> {
        let _ = name;
        Ok(())
    }

    /// Makes the pod's namespace, joined to its node. For a pod that is attached there already, gives what it has.
    pub async fn attach_pod(&self, node: &str, pod_uid: &str) -> Result<PodNetwork, NetworkError> {
        let _ = pod_uid;
        Err(NetworkError::UnknownNode(node.to_owned()))
    }

    /// Takes the pod off the network at once, also when processes still hold its namespace. Unknown pods are no error.
    pub async fn detach_pod(&self, pod_uid: &str) -> Result<(), NetworkError> {
        let _ = pod_uid;
        Ok(())
    }

    /// Makes Services, policies and links what `plan` says. Only differences to the last plan are sent to the kernel, as
    /// one atomic change per node; on an error nothing of that node has changed. Idempotent.
    pub async fn apply(&self, plan: &NetworkPlan) -> Result<(), NetworkError> {
        let _ = plan;
        Ok(())
    }

    /// The control plane's namespace, with the fabric address.
    pub fn fabric(&self) -> Netns {
        self.inner.fabric.clone()
    }

    /// A node's namespace.
    pub fn node(&self, name: &str) -> Option<Netns> {
        let _ = name;
        None
    }

    /// An attached pod.
    pub fn pod(&self, pod_uid: &str) -> Option<PodNetwork> {
        let _ = pod_uid;
        None
    }
}
