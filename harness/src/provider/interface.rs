//! What a provider does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use gateways::{GatewayBuild, NodePorts};

use super::named_image::{FoundImage, MissingImage};
use crate::scenario::Plan;
use crate::scenario::model::Need;

/// An image that pods of the lab use: a name, and the folders of this machine whose content it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabImage {
    pub name: String,
    /// Folder on this machine, absolute path in the container.
    pub content: Vec<(PathBuf, PathBuf)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Gone when this process ends, however it ends.
    Attached,
    /// Until it is deleted.
    Detached,
}

#[derive(Clone, Debug)]
pub struct ClusterRequest {
    /// Unique among this user's clusters; a DNS label.
    pub name: String,
    pub nodes: u32,
    /// How long a node may be silent before it counts as lost; `None`: the provider's own.
    pub node_grace: Option<Duration>,
    /// Beside the lab's own image, which every cluster gets.
    pub images: Vec<LabImage>,
    pub lifetime: Lifetime,
    /// Bound of the time until the API answers and nodes are ready.
    pub within: Duration,
}

/// What the runner has to know about clusters of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSetting {
    /// How long objects must have been left alone for the network to have caught up with them: rules for Services and
    /// policies are programmed by a component that reports to nobody when it has done so.
    pub quiet: Duration,
    /// What a scenario may ask for and this provider does not have, with the reason.
    pub lacking: Vec<(Need, String)>,
    /// How many nodes take pods; `None`: as many as a scenario asks for.
    pub takers: Option<u32>,
    /// How many runs may go on at the same time; `None`: as many as the machine bears.
    pub at_once: Option<usize>,
    /// By how much what bounds a wait for rollouts is longer than the scenario says, which is written for clusters that start a pod
    /// in milliseconds.
    pub patience: u32,
    /// How long after the last request what it did to a container may take to be on the pod's status.
    pub reported_within: Duration,
}

impl ClusterSetting {
    /// Why a scenario cannot run here.
    pub fn lacks(&self, plan: &Plan) -> Option<String> {
        let lacking = || self.lacking.iter().find(|(need, _)| plan.needs.contains(need)).map(|(_, reason)| reason.clone());
        let several = plan.needs.contains(&Need::SeveralNodes);
        let few = self.takers.filter(|takers| several && *takers < plan.nodes);
        lacking().or_else(|| few.map(|takers| format!("{} nodes that take pods are needed, and this cluster has {takers}", plan.nodes)))
    }
}

/// What failed, as the provider says it. `forbidden`: the machine does not allow it; else something went wrong.
#[derive(Debug, thiserror::Error)]
#[error("{provider} cluster: {detail}")]
pub struct ProviderError {
    pub provider: String,
    pub detail: String,
    /// The machine cannot do it at all: no other run will fare better.
    pub hopeless: bool,
    /// What to do about it.
    pub hints: Vec<String>,
}

/// Where this machine reaches the gateway of a cluster: addresses on loopback, and the node ports that they lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPorts {
    pub node_ports: NodePorts,
    pub http: SocketAddr,
    pub https: SocketAddr,
}

/// A cluster that runs. Dropping the handle of an attached cluster takes it away.
#[async_trait]
pub trait ClusterHandle: Send + Sync {
    fn kubeconfig(&self) -> &Path;

    /// Context in the kubeconfig; `None`: its current one.
    fn context(&self) -> Option<&str> {
        None
    }

    /// Ports of this machine that the cluster was made with; `None`: the cluster says on the gateway's Service where it is reached.
    fn host_ports(&self) -> Option<&HostPorts> {
        None
    }

    /// Value of the label by which namespaces and objects without one are found again when they are to go; `None` where they go
    /// with the cluster.
    fn mark(&self) -> Option<&str> {
        None
    }

    /// Whether others work in the cluster, whose objects are nobody's business.
    fn is_shared(&self) -> bool {
        false
    }

    /// The end of whatever log the cluster itself keeps, for error messages.
    fn log_tail(&self) -> String {
        String::new()
    }

    /// Takes the cluster away; returns when it is gone.
    async fn delete(self: Box<Self>) -> Result<(), ProviderError>;
}

#[async_trait]
pub trait Provider: Send + Sync {
    /// As `--cluster` takes it.
    fn name(&self) -> &str;

    fn setting(&self) -> ClusterSetting;

    /// Makes what all runs of an invocation share, ahead of the first and outside of its bound. `builds`: the gateways that runs
    /// will use; `tell` takes each step that begins, for people. When the future is dropped, [`Provider::end`] must follow.
    async fn prepare(&self, _builds: &[GatewayBuild], _tell: &(dyn Fn(String) + Send + Sync)) -> Result<(), ProviderError> {
        Ok(())
    }

    /// Takes away what [`Provider::prepare`] has made, as far as it came; returns what is left on purpose, for people.
    async fn end(&self) -> Result<Option<String>, ProviderError> {
        Ok(None)
    }

    /// Gateways that come out of images which the user named; known once it is prepared.
    fn found_images(&self) -> Vec<FoundImage> {
        Vec::new()
    }

    /// Gateways whose images nobody named and the cluster cannot have; known once it is prepared.
    fn missing_images(&self) -> Vec<MissingImage> {
        Vec::new()
    }

    /// Brings a cluster up, with the lab's images in it. When the future is dropped, what was begun goes away again.
    async fn create(&self, request: &ClusterRequest) -> Result<Box<dyn ClusterHandle>, ProviderError>;
}
