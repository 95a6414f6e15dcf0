//! The cluster's network: namespaces joined by veth pairs and routed, Services as DNAT, policies as drops, links with
//! latency.

mod data_plane;
mod error;
mod model;
mod netns;
pub mod redirect;

pub use data_plane::{DataPlane, DataPlaneConfig, PodNetwork};
pub use error::NetworkError;
pub use model::{Allow, Isolation, Link, NetworkPlan, PodIsolation, PortRange, Protocol, ServicePort};
pub use netns::Netns;
