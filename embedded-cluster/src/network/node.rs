//! One node of the cluster's network: how it is joined to the fabric, and its pods to it.
//!
//! Everything is routed and no two pods share a link, so every packet from or to a pod passes its node's forward hook,
//! also between pods of one node; that is where policies are enforced.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::Ipv4Net;

use super::addresses::PodAddresses;
use super::conntrack::{self, UdpDestinations};
use super::data_plane::DataPlaneConfig;
use super::error::NetworkError;
use super::links::{self, MacAddress, Route, VethEnd};
use super::model::NetworkPlan;
use super::namespace_setup::{self, Role};
use super::netlink::NetlinkSocket;
use super::netns::Netns;
use super::nftables::{self, Ruleset};
use super::policies;
use super::services::{self, RenderedServices, ServiceSurroundings};
use super::wire::{LinkId, Quality, Wire};

/// The pod's side of its link has no other host on it; its gateway is an address that exists nowhere else, as with Calico.
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const POD_GATEWAY_MAC: MacAddress = [0xee; 6];
/// Everything of ours in a node's packet filter is in this table.
const TABLE: &str = "cluster";
/// Number of `eth0` in nodes and pods; loopback is 1.
const ETH0: u32 = 2;
/// A node's second interface, over the wire.
const ETH1: u32 = 3;
/// Numbers from here on are those of the pods' links in a node and of the nodes' links in the fabric.
pub(super) const FIRST_PORT: u32 = 100;
pub(super) const ANYWHERE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

/// The namespace that joins the nodes, and the control plane's place.
pub(super) struct Fabric {
    pub(super) netns: Netns,
    pub(super) address: Ipv4Addr,
    pub(super) route: NetlinkSocket,
    next_port: u32,
}

impl Fabric {
    pub(super) fn create(address: Ipv4Addr) -> Result<Self, NetworkError> {
        let (netns, mut route) = namespace_setup::create("fabric", Role::Router)?;
        route.request(&[links::add_address(links::LOOPBACK, address)])?;
        Ok(Self { netns, address, route, next_port: FIRST_PORT })
    }

    pub(super) fn next_port(&mut self) -> u32 {
        let port = self.next_port;
        self.next_port += 1;
        port
    }
}

pub(super) struct Node {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) pods: Ipv4Net,
    pub(super) netns: Netns,
    pub(super) route: NetlinkSocket,
    pub(super) addresses: PodAddresses,
    /// Number of this node's interface in the fabric.
    pub(super) fabric_port: u32,
    next_port: u32,
    /// A second routing socket, for what takes long.
    remover: Arc<Mutex<NetlinkSocket>>,
    filter: NetlinkSocket,
    /// What the kernel has; `None` before the first time.
    rules: Option<Ruleset>,
    udp: UdpDestinations,
    quality: Quality,
    /// The way to the fabric with latency and loss, once it was needed.
    wired: Option<WiredLink>,
}

/// A second link between node and fabric, through the wire.
#[derive(Clone, Copy, Debug)]
struct WiredLink {
    id: LinkId,
    fabric_port: u32,
}

/// A pod's link on its node's side.
#[derive(Debug)]
pub(super) struct PodLink {
    pub(super) address: Ipv4Addr,
    pub(super) port: u32,
}

impl Node {
    /// Makes the node's namespace and joins it to the fabric by a veth pair.
    pub(super) fn join(fabric: &mut Fabric, name: &str, address: Ipv4Addr, pods: Ipv4Net) -> Result<Self, NetworkError> {
        let (netns, route) = namespace_setup::create(&format!("node-{name}"), Role::Router)?;
        let (filter, remover) = netns.run_blocking(|| {
            Ok::<_, NetworkError>((NetlinkSocket::open(libc::NETLINK_NETFILTER)?, NetlinkSocket::open(libc::NETLINK_ROUTE)?))
        })??;
        let fabric_port = fabric.next_port();
        let fabric_end = VethEnd { name: format!("node{fabric_port}"), index: fabric_port, mac: fabric_mac(address) };
        let node_end = VethEnd { name: "eth0".to_owned(), index: ETH0, mac: address_mac(address) };
        let mut node = Self {
            name: name.to_owned(),
            address,
            pods,
            netns,
            route,
            addresses: PodAddresses::new(pods),
            fabric_port,
            next_port: FIRST_PORT,
            remover: Arc::new(Mutex::new(remover)),
            filter,
            rules: None,
            udp: UdpDestinations::new(),
            quality: Quality::default(),
            wired: None,
        };
        fabric.route.request(&[links::add_veth(&fabric_end, &node_end, node.netns.fd()), links::set_forwarding(fabric_port)])?;
        node.route.request(&[links::set_up(ETH0), links::add_address(ETH0, address), links::set_forwarding(ETH0)])?;
        links::wait_until_active(&mut fabric.route, fabric_port)?;
        node.route_over(fabric, fabric_port, ETH0)?;
        Ok(node)
    }

    /// Sends the traffic between the node and the fabric over the given pair of interfaces, both ways.
    pub(super) fn route_over(&mut self, fabric: &mut Fabric, fabric_port: u32, node_port: u32) -> Result<(), NetworkError> {
        let direct = |destination: Ipv4Addr, interface, source| {
            links::set_route(Route { destination: host(destination), interface, gateway: None, source: Some(source) })
        };
        self.route.request(&[
            links::set_neighbour(node_port, fabric.address, fabric_mac(self.address)),
            direct(fabric.address, node_port, self.address),
            links::set_route(Route {
                destination: ANYWHERE,
                interface: node_port,
                gateway: Some(fabric.address),
                source: Some(self.address),
            }),
        ])?;
        fabric.route.request(&[
            links::set_neighbour(fabric_port, self.address, address_mac(self.address)),
            direct(self.address, fabric_port, fabric.address),
            links::set_route(Route {
                destination: self.pods,
                interface: fabric_port,
                gateway: Some(self.address),
                source: Some(fabric.address),
            }),
        ])
    }

    /// Joins a pod's namespace to the node; `pod_route` is a routing socket inside it.
    pub(super) fn attach(&mut self, pod: &Netns, pod_route: &mut NetlinkSocket) -> Result<PodLink, NetworkError> {
        let address =
            self.addresses.allocate().ok_or_else(|| NetworkError::AddressesExhausted { node: self.name.clone(), range: self.pods })?;
        let port = self.next_port;
        self.next_port += 1;
        let joined = self.attach_at(pod, pod_route, address, port);
        if joined.is_err() {
            self.addresses.release(address);
        }
        joined.map(|()| PodLink { address, port })
    }

    fn attach_at(&mut self, pod: &Netns, pod_route: &mut NetlinkSocket, address: Ipv4Addr, port: u32) -> Result<(), NetworkError> {
        let node_end = VethEnd { name: format!("pod{port}"), index: port, mac: POD_GATEWAY_MAC };
        let pod_end = VethEnd { name: "eth0".to_owned(), index: ETH0, mac: address_mac(address) };
        self.route.request(&[
            links::add_veth(&node_end, &pod_end, pod.fd()),
            links::set_forwarding(port),
            links::set_neighbour(port, address, pod_end.mac),
            links::set_route(Route { destination: host(address), interface: port, gateway: None, source: Some(self.address) }),
        ])?;
        pod_route.request(&[
            links::set_up(ETH0),
            links::add_address(ETH0, address),
            links::set_neighbour(ETH0, POD_GATEWAY, POD_GATEWAY_MAC),
            links::set_route(Route { destination: host(POD_GATEWAY), interface: ETH0, gateway: None, source: Some(address) }),
            links::set_route(Route { destination: ANYWHERE, interface: ETH0, gateway: Some(POD_GATEWAY), source: Some(address) }),
        ])?;
        links::wait_until_active(&mut self.route, port)
    }

    /// Makes the node's packet filter carry out Services and policies, as one transaction.
    pub(super) fn apply(&mut self, config: &DataPlaneConfig, plan: &NetworkPlan, services: &RenderedServices) -> Result<(), NetworkError> {
        let mut wanted = Ruleset::default();
        let surroundings = ServiceSurroundings { node_address: self.address, service_network: config.service_network };
        services::add_services(&mut wanted, surroundings, services);
        policies::add_policies(&mut wanted, self.pods, &plan.isolations);
        let changes = nftables::update(TABLE, self.rules.as_ref(), &wanted);
        if let Err(error) = changes.commit(&mut self.filter) {
            // Part of a very long change may have been made; the next one starts afresh.
            self.rules = None;
            return Err(error);
        }
        self.rules = Some(wanted);
        let udp = conntrack::udp_destinations(&plan.services, self.address);
        if conntrack::lost_endpoints(&self.udp, &udp) {
            // A kernel without ctnetlink only forgets by itself, 30 to 120 seconds after the last packet.
            if let Err(error) = conntrack::forget_stale(&mut self.filter, &self.udp, &udp) {
                tracing::warn!(node = self.name, %error, "UDP clients may stay with endpoints that are gone for a while");
            }
        }
        self.udp = udp;
        Ok(())
    }

    /// Changes the link to the fabric. A perfect link is the kernel's own path; others lead through the wire. Routes are
    /// changed on the fly, so connections go on: both ways exist side by side, with the same addresses.
    pub(super) fn set_quality(&mut self, quality: Quality, fabric: &mut Fabric, wire: &mut Option<Wire>) -> Result<(), NetworkError> {
        if quality == self.quality {
            return Ok(());
        }
        match (self.wired, quality.is_perfect()) {
            (Some(wired), perfect) => {
                let wire = existing(wire)?;
                if perfect {
                    self.route_over(fabric, self.fabric_port, ETH0)?;
                }
                wire.set(wired.id, quality)?;
                if !perfect && self.quality.is_perfect() {
                    self.route_over(fabric, wired.fabric_port, ETH1)?;
                }
            }
            (None, true) => {}
            (None, false) => {
                let wired = self.join_by_wire(fabric, wire, quality)?;
                self.wired = Some(wired);
                self.route_over(fabric, wired.fabric_port, ETH1)?;
            }
        }
        self.quality = quality;
        Ok(())
    }

    fn join_by_wire(&mut self, fabric: &mut Fabric, wire: &mut Option<Wire>, quality: Quality) -> Result<WiredLink, NetworkError> {
        if wire.is_none() {
            *wire = Some(Wire::create()?);
        }
        let wire = existing(wire)?;
        let fabric_port = fabric.next_port();
        let ends = [wire.next_interface(), wire.next_interface()];
        let [towards_fabric, towards_node] = ends.map(|index| VethEnd { name: format!("end{index}"), index, mac: wire_mac(index) });
        // The same link addresses as on the direct link: neighbours stay what they are.
        let fabric_end = VethEnd { name: format!("node{fabric_port}"), index: fabric_port, mac: fabric_mac(self.address) };
        let node_end = VethEnd { name: "eth1".to_owned(), index: ETH1, mac: address_mac(self.address) };
        fabric.route.request(&[links::add_veth(&fabric_end, &towards_fabric, wire.netns().fd()), links::set_forwarding(fabric_port)])?;
        self.route.request(&[links::add_veth(&node_end, &towards_node, wire.netns().fd()), links::set_forwarding(ETH1)])?;
        let id = wire.add_link(ends, quality)?;
        links::wait_until_active(&mut fabric.route, fabric_port)?;
        links::wait_until_active(&mut self.route, ETH1)?;
        Ok(WiredLink { id, fabric_port })
    }

    /// Takes the node off the fabric.
    pub(super) fn leave(self, fabric: &mut Fabric, wire: &mut Option<Wire>) -> Result<(), NetworkError> {
        if let (Some(wired), Some(wire)) = (self.wired, wire) {
            wire.remove(wired.id)?;
            fabric.route.request(&[links::delete_link(wired.fabric_port)])?;
        }
        fabric.route.request(&[links::delete_link(self.fabric_port)])
    }

    /// Cuts the pod off. Its interface is still there; see [`Removal::finish`].
    pub(super) fn detach(&mut self, link: &PodLink) -> Result<Removal, NetworkError> {
        let gone = match self.route.request(&[links::delete_route(host(link.address))]) {
            // Its namespace, and with it the interface, was quicker.
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        };
        self.addresses.release(link.address);
        gone.map(|()| Removal { remover: Arc::clone(&self.remover), port: link.port })
    }
}

/// An interface without a use. Deleting it takes the kernel some ten milliseconds, most of it without holding a lock, so
/// that is left to be done when ours are released.
#[must_use]
pub(super) struct Removal {
    remover: Arc<Mutex<NetlinkSocket>>,
    port: u32,
}

impl Removal {
    pub(super) fn finish(self) -> Result<(), NetworkError> {
        let mut remover = self.remover.lock().unwrap_or_else(PoisonError::into_inner);
        match remover.request(&[links::delete_link(self.port)]) {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            outcome => outcome,
        }
    }
}

fn existing(wire: &mut Option<Wire>) -> Result<&mut Wire, NetworkError> {
    wire.as_mut().ok_or_else(|| NetworkError::ThreadLost { action: "change a link".to_owned() })
}

pub(super) fn host(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(address, 32)
}

/// Locally administered addresses that show the IPv4 address they belong to, as Docker makes them.
fn address_mac(address: Ipv4Addr) -> MacAddress {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// An end inside the wire; no frame is addressed to it.
fn wire_mac(index: u32) -> MacAddress {
    let [a, b, c, d] = index.to_be_bytes();
    [0x02, 0xff, a, b, c, d]
}

/// The fabric's end of the link to the node with this address.
fn fabric_mac(node: Ipv4Addr) -> MacAddress {
    let [a, b, c, d] = node.octets();
    [0x02, 0xfa, a, b, c, d]
}
