//! The node agent: takes the pods bound to its node through their life on a container runtime, and reports it.

mod access;
mod api_link;
mod back_off;
mod container;
mod environment;
mod hooks;
mod interface;
mod killing;
mod logs;
mod node;
mod node_status;
mod probe_actions;
mod prober;
mod quantity;
mod resolv;
mod starting;
mod status;
mod sysctls;
mod volumes;
mod worker;

pub use access::ClusterPods;
pub use api_link::ApiConnection;
pub use back_off::BackOffLimits;
pub use interface::{AccessError, ContainerTarget, ContainerUsage, LogOptions, PodAccess};
pub use node::{Kubelet, KubeletSettings, NodeIdentity, TokenIssuer};
