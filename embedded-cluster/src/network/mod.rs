//! The cluster's network: namespaces joined by veth pairs and routed, Services as DNAT, policies as drops, links with
//! latency.

mod model;

pub use model::{Allow, Isolation, Link, NetworkPlan, PodIsolation, PortRange, Protocol, ServicePort};
