//! What the data plane is to do, as plain values: controllers compute a [`NetworkPlan`], the data plane carries it out.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// One port of one Service, as kube-proxy would program it. Without endpoints, packets to it are rejected with an
/// ICMP port unreachable (kube-proxy's behaviour: connection refused at once).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name:port-name`, for people who read the rules.
    pub name: String,
    pub cluster_ip: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
    /// Ready endpoints; all serving terminating ones when none is ready (KEP-1669).
    pub endpoints: Vec<(Ipv4Addr, u16)>,
    /// `sessionAffinity: ClientIP` with its timeout.
    pub client_affinity: Option<Duration>,
}

/// Inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub protocol: Protocol,
    pub first: u16,
    pub last: u16,
}

/// One `from`/`to` rule of NetworkPolicies, selectors already resolved to addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// `None`: any peer. Each entry is a range and the ranges excepted from it.
    pub peers: Option<Vec<(Ipv4Net, Vec<Ipv4Net>)>>,
    /// `None`: any port. Ports are those the packet has when it reaches the pod, after DNAT.
    pub ports: Option<Vec<PortRange>>,
}

/// Whether traffic in one direction is restricted, and what is let through nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    Open,
    /// Everything is dropped silently but replies of established connections, traffic of the pod's own node (as the
    /// kubelet's probes need it) and what a rule allows.
    Only(Vec<Allow>),
    /// Everything is dropped, running connections too: a pod network that lost its routes, not a policy.
    Severed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIsolation {
    pub pod: Ipv4Addr,
    pub ingress: Isolation,
    pub egress: Isolation,
}

/// How packets travel between a node and all others: each direction is delayed by `latency`, and dropped with
/// probability `loss` (0 to 1; 1 cuts the node off).
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub node: String,
    pub latency: Duration,
    pub loss: f64,
}

/// The whole desired state; applied as one atomic change of the kernel's rules per node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkPlan {
    /// Shared, so that those that stay the same are known as such without a look into them.
    pub services: Vec<Arc<ServicePort>>,
    pub isolations: Vec<PodIsolation>,
    pub links: Vec<Link>,
}
