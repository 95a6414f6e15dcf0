//! The cluster's network: namespaces joined by veth pairs and routed, Services as DNAT, policies as drops, links with
//! latency.

mod addresses;
mod conntrack;
mod data_plane;
mod error;
mod links;
mod model;
mod namespace_setup;
mod netlink;
mod netns;
mod nftables;
mod node;
pub mod outgoing;
mod policies;
pub mod redirect;
mod services;
mod wire;

pub use data_plane::{DataPlane, DataPlaneConfig, PodNetwork};
pub use error::NetworkError;
pub use model::{Allow, Isolation, Link, NetworkPlan, PodIsolation, PortRange, Protocol, ServicePort};
pub use netns::Netns;
