//! Forgetting UDP "connections" whose endpoint is gone.
//!
//! The kernel translates all packets between two UDP ports as it did the first one, for as long as packets keep coming. A
//! resolver that keeps its socket would go on asking a DNS pod that was replaced. TCP has no such problem: connections
//! to a gone pod end by themselves. kube-proxy cleans up in the same way, over ctnetlink
//! (`<linux/netfilter/nfnetlink_conntrack.h>`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::error::NetworkError;
use super::model::{Protocol, ServicePort};
use super::netlink::{Attributes, Message, NetlinkSocket, attributes_in};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const FAMILY_HEADER: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

type Endpoint = (Ipv4Addr, u16);

/// Where UDP packets to each Service port go now; nowhere, where the set is empty.
pub(super) type UdpDestinations = BTreeMap<Endpoint, BTreeSet<Endpoint>>;

pub(super) fn udp_destinations(services: &[Arc<ServicePort>], node: Ipv4Addr) -> UdpDestinations {
    let mut destinations = UdpDestinations::new();
    for service in services.iter().filter(|service| service.protocol == Protocol::Udp) {
        let node_port = service.node_port.map(|port| (node, port));
        for key in [Some((service.cluster_ip, service.port)), node_port].into_iter().flatten() {
            destinations.insert(key, service.endpoints.iter().copied().collect());
        }
    }
    destinations
}

/// Whether something tracked may have become stale. Listing what is tracked takes the kernel some ten milliseconds (it goes
/// through the table of the whole machine), so it is only done then.
pub(super) fn lost_endpoints(before: &UdpDestinations, now: &UdpDestinations) -> bool {
    before.iter().any(|(key, endpoints)| now.get(key).map_or(!endpoints.is_empty(), |remaining| !endpoints.is_subset(remaining)))
}

/// Deletes what was tracked for `before` and does not fit `now`. `before` names Service ports that may be gone by now.
pub(super) fn forget_stale(socket: &mut NetlinkSocket, before: &UdpDestinations, now: &UdpDestinations) -> Result<(), NetworkError> {
    let dump = Message::new("list tracked connections", GET, libc::NLM_F_DUMP as u16, &FAMILY_HEADER, &Attributes::new());
    let mut stale = Vec::new();
    socket.query(&dump, |_, payload| {
        if let Some(entry) = Entry::parse(payload)
            && (before.contains_key(&entry.asked) || now.contains_key(&entry.asked))
            && !now.get(&entry.asked).is_some_and(|endpoints| endpoints.contains(&entry.answering))
        {
            let tuple = Attributes::new().nested_bytes(CTA_TUPLE_ORIG, entry.original);
            stale.push(Message::new("forget a tracked connection", DELETE, 0, &FAMILY_HEADER, &tuple));
        }
    })?;
    for message in stale {
        match socket.request(&[message]) {
            // It timed out in between.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// A tracked UDP exchange: what the client asked, and who answers it.
struct Entry<'a> {
    asked: Endpoint,
    answering: Endpoint,
    original: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(payload: &'a [u8]) -> Option<Self> {
        let attributes = payload.get(FAMILY_HEADER.len()..)?;
        let original = value_of(attributes, CTA_TUPLE_ORIG)?;
        let reply = value_of(attributes, CTA_TUPLE_REPLY)?;
        let number = value_of(value_of(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?;
        (number == [Protocol::Udp.number()]).then_some(())?;
        Some(Self {
            asked: endpoint(original, CTA_IP_V4_DST, CTA_PROTO_DST_PORT)?,
            answering: endpoint(reply, CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT)?,
            original,
        })
    }
}

fn endpoint(tuple: &[u8], address: u16, port: u16) -> Option<Endpoint> {
    let address: [u8; 4] = value_of(value_of(tuple, CTA_TUPLE_IP)?, address)?.try_into().ok()?;
    let port: [u8; 2] = value_of(value_of(tuple, CTA_TUPLE_PROTO)?, port)?.try_into().ok()?;
    Some((address.into(), u16::from_be_bytes(port)))
}

fn value_of(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes_in(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Endpoint = (Ipv4Addr::new(10, 96, 0, 10), 53);

    fn destinations(endpoints: &[u8]) -> UdpDestinations {
        let endpoints = endpoints.iter().map(|last| (Ipv4Addr::new(10, 244, 0, *last), 5353)).collect();
        UdpDestinations::from([(SERVICE, endpoints)])
    }

    #[test]
    fn only_endpoints_that_left_make_anything_stale() {
        assert!(!lost_endpoints(&destinations(&[]), &destinations(&[2])));
        assert!(!lost_endpoints(&destinations(&[2]), &destinations(&[2, 3])));
        assert!(lost_endpoints(&destinations(&[2, 3]), &destinations(&[2])));
        assert!(lost_endpoints(&destinations(&[2]), &UdpDestinations::new()));
        assert!(!lost_endpoints(&destinations(&[]), &UdpDestinations::new()));
    }

    #[test]
    fn an_entry_tells_who_was_asked_and_who_answers() {
        let tuple = |source: [u8; 4], destination: [u8; 4], source_port: u16, destination_port: u16, protocol: u8| {
            let address = Attributes::new().bytes(CTA_IP_V4_SRC, &source).bytes(CTA_IP_V4_DST, &destination);
            let ports = Attributes::new()
                .bytes(CTA_PROTO_NUM, &[protocol])
                .bytes(CTA_PROTO_SRC_PORT, &source_port.to_be_bytes())
                .bytes(CTA_PROTO_DST_PORT, &destination_port.to_be_bytes());
            Attributes::new().nested(CTA_TUPLE_IP, address).nested(CTA_TUPLE_PROTO, ports)
        };
        let payload = |protocol| {
            let original = tuple([10, 244, 0, 9], [10, 96, 0, 10], 40000, 53, protocol);
            let reply = tuple([10, 244, 0, 2], [10, 244, 0, 9], 5353, 40000, protocol);
            let attributes = Attributes::new().nested(CTA_TUPLE_ORIG, original).nested(CTA_TUPLE_REPLY, reply);
            [FAMILY_HEADER.as_slice(), attributes.as_bytes()].concat()
        };
        let udp = payload(Protocol::Udp.number());
        let entry = Entry::parse(&udp).unwrap();
        assert_eq!((entry.asked, entry.answering), (SERVICE, ([10, 244, 0, 2].into(), 5353)));
        assert!(Entry::parse(&payload(Protocol::Tcp.number())).is_none());
        assert!(Entry::parse(&udp[..20]).is_none());
    }
}
