//! The node agent: takes the pods bound to its node through their life on a container runtime, and reports it.

mod access;
mod interface;
mod node;

pub use access::ClusterPods;
pub use interface::{AccessError, ContainerTarget, LogOptions, PodAccess};
pub use node::{BackOffLimits, Kubelet, KubeletSettings, NodeIdentity, TokenIssuer};
