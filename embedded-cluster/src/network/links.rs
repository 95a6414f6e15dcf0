//! rtnetlink requests: interfaces, addresses, routes and neighbours. Layouts from `<linux/rtnetlink.h>`,
//! `<linux/if_link.h>` and `<linux/neighbour.h>`.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use ipnet::Ipv4Net;

use super::error::NetworkError;
use super::netlink::{Attributes, Message, NetlinkSocket, attributes_in};

pub(super) type MacAddress = [u8; 6];

/// The loopback interface is the first of every namespace.
pub(super) const LOOPBACK: u32 = 1;

const AF_INET: u8 = libc::AF_INET as u8;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const CREATE_OR_REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
const UP: u32 = libc::IFF_UP as u32;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_OPERSTATE: u16 = 16;
/// `IF_OPER_UP` of RFC 2863.
const OPERATIONAL: u8 = 6;
const CARRIER_POLLS: u32 = 2000;
const CARRIER_POLL_INTERVAL: Duration = Duration::from_millis(1);
const LINK_HEADER: usize = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_FORWARDING: u16 = 1;
const IPV4_DEVCONF_SEND_REDIRECTS: u16 = 6;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
/// In a request to delete: any scope.
const RT_SCOPE_NOWHERE: u8 = 255;
const RTN_UNICAST: u8 = 1;
/// The gateway is taken to be on the link although no route says so.
const RTNH_F_ONLINK: u32 = 4;

/// One end of a veth pair. Interface numbers are chosen by us, so that nothing has to be looked up afterwards.
#[derive(Clone, Debug)]
pub(super) struct VethEnd {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: MacAddress,
}

/// A route to `destination`, over a gateway or directly on the link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) destination: Ipv4Net,
    pub(super) interface: u32,
    pub(super) gateway: Option<Ipv4Addr>,
    /// Source address of connections the namespace itself makes over this route.
    pub(super) source: Option<Ipv4Addr>,
}

/// Makes a veth pair: `near`, up, in the namespace of the socket; `far`, still down, in `namespace`.
pub(super) fn add_veth(near: &VethEnd, far: &VethEnd, namespace: BorrowedFd<'_>) -> Message {
    let end = |end: &VethEnd| {
        // By default the kernel makes a queue for each processor and then waits, for milliseconds and with the lock of all
        // interfaces held, until it has taken all but one away again.
        Attributes::new().string(IFLA_IFNAME, &end.name).bytes(IFLA_ADDRESS, &end.mac).u32(IFLA_NUM_TX_QUEUES, 1).u32(IFLA_NUM_RX_QUEUES, 1)
    };
    let far_end = end(far).bytes(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    // The peer's attribute starts with a whole `struct ifinfomsg`. It cannot be up yet: at that moment the kernel has not
    // joined the two (ENOTCONN).
    let mut peer = link_header(far.index, 0).to_vec();
    peer.extend_from_slice(far_end.as_bytes());
    let attributes = end(near).nested(
        IFLA_LINKINFO,
        Attributes::new().string(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, Attributes::new().bytes(VETH_INFO_PEER, &peer)),
    );
    Message::new(format!("make veth pair {}-{}", near.name, far.name), libc::RTM_NEWLINK, CREATE, &link_header(near.index, UP), &attributes)
}

pub(super) fn delete_link(index: u32) -> Message {
    Message::new(format!("delete interface {index}"), libc::RTM_DELLINK, 0, &link_header(index, 0), &Attributes::new())
}

pub(super) fn set_up(index: u32) -> Message {
    Message::new(format!("set interface {index} up"), libc::RTM_NEWLINK, 0, &link_header(index, UP), &Attributes::new())
}

/// Lets the interface forward what it receives. By netlink rather than by /proc/sys, which is read-only in many containers.
pub(super) fn set_forwarding(index: u32) -> Message {
    let settings = Attributes::new().u32(IPV4_DEVCONF_FORWARDING, 1).u32(IPV4_DEVCONF_SEND_REDIRECTS, 0).u32(IPV4_DEVCONF_RP_FILTER, 0);
    let attributes = Attributes::new()
        .nested(IFLA_AF_SPEC, Attributes::new().nested(u16::from(AF_INET), Attributes::new().nested(IFLA_INET_CONF, settings)));
    Message::new(format!("enable forwarding on interface {index}"), libc::RTM_SETLINK, 0, &link_header(index, 0), &attributes)
}

/// Gives the interface a host address: nothing but itself is on its link.
pub(super) fn add_address(index: u32, address: Ipv4Addr) -> Message {
    let mut header = vec![AF_INET, 32, 0, RT_SCOPE_UNIVERSE];
    header.extend_from_slice(&index.to_ne_bytes());
    let attributes = Attributes::new().bytes(IFA_LOCAL, &address.octets()).bytes(IFA_ADDRESS, &address.octets());
    Message::new(format!("add address {address} to interface {index}"), libc::RTM_NEWADDR, CREATE, &header, &attributes)
}

/// Adds the route, or replaces the one to the same destination.
pub(super) fn set_route(route: Route) -> Message {
    let attributes = Attributes::new()
        .bytes(RTA_DST, &route.destination.network().octets())
        .u32(RTA_OIF, route.interface)
        .maybe(|list| list.bytes(RTA_GATEWAY, &route.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED).octets()), route.gateway.is_some())
        .maybe(|list| list.bytes(RTA_PREFSRC, &route.source.unwrap_or(Ipv4Addr::UNSPECIFIED).octets()), route.source.is_some());
    let scope = if route.gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
    let mut header = vec![AF_INET, route.destination.prefix_len(), 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST];
    header.extend_from_slice(&if route.gateway.is_some() { RTNH_F_ONLINK } else { 0 }.to_ne_bytes());
    Message::new(
        format!("route {} over interface {}", route.destination, route.interface),
        libc::RTM_NEWROUTE,
        CREATE_OR_REPLACE,
        &header,
        &attributes,
    )
}

/// Deletes the route to exactly this destination.
pub(super) fn delete_route(destination: Ipv4Net) -> Message {
    let attributes = Attributes::new().bytes(RTA_DST, &destination.network().octets());
    let header = [AF_INET, destination.prefix_len(), 0, 0, RT_TABLE_MAIN, 0, RT_SCOPE_NOWHERE, 0, 0, 0, 0, 0];
    Message::new(format!("delete the route to {destination}"), libc::RTM_DELROUTE, 0, &header, &attributes)
}

/// Fixes the link address of a neighbour, so that no packet ever waits for ARP (which a lossy link would lose).
pub(super) fn set_neighbour(index: u32, address: Ipv4Addr, mac: MacAddress) -> Message {
    let mut header = vec![AF_INET, 0, 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    header.extend_from_slice(&NUD_PERMANENT.to_ne_bytes());
    header.extend_from_slice(&[0, 0]);
    let attributes = Attributes::new().bytes(NDA_DST, &address.octets()).bytes(NDA_LLADDR, &mac);
    Message::new(format!("set neighbour {address} of interface {index}"), libc::RTM_NEWNEIGH, CREATE_OR_REPLACE, &header, &attributes)
}

/// Waits until the interface really transmits. The end of a veth pair that was set up first gets its queue only when the
/// kernel has noticed the carrier ("link watch", deferred work); until then it drops all packets silently, and a lost SYN
/// costs a second.
pub(super) fn wait_until_active(socket: &mut NetlinkSocket, index: u32) -> Result<(), NetworkError> {
    let action = format!("wait for the carrier of interface {index}");
    let message = Message::new(&action, libc::RTM_GETLINK, 0, &link_header(index, 0), &Attributes::new());
    for _ in 0..CARRIER_POLLS {
        let mut active = false;
        // Since Linux 6.8 the question itself makes the kernel catch up; older ones take some milliseconds.
        socket.query(&message, |_, payload| {
            let attributes = payload.get(LINK_HEADER..).unwrap_or_default();
            active |= attributes_in(attributes).any(|(kind, value)| kind == IFLA_OPERSTATE && value == [OPERATIONAL]);
        })?;
        if active {
            return Ok(());
        }
        std::thread::park_timeout(CARRIER_POLL_INTERVAL);
    }
    Err(NetworkError::Kernel { action, detail: None, source: std::io::ErrorKind::TimedOut.into() })
}

/// `struct ifinfomsg`: family, padding, type, index, flags, and which flags are meant.
fn link_header(index: u32, flags: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}
