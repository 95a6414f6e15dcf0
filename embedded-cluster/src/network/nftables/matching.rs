//! What rules are made of, in the words of the packet: each function gives the expressions of one condition.
//!
//! Conditions use the first registers as they like, one after the other.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use super::expression::{Comparison, Conntrack, Expression, Header, Meta, Register};
use crate::network::model::Protocol;

const SCRATCH: Register = Register(0);
const SOURCE_OFFSET: u32 = 12;
const DESTINATION_OFFSET: u32 = 16;
const DESTINATION_PORT_OFFSET: u32 = 2;
// Bits of `ct state`.
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
const NEW: u32 = 1 << 3;
/// `IPS_DST_NAT`.
const DESTINATION_TRANSLATED: u32 = 1 << 5;

pub(in crate::network) fn source(into: Register) -> Expression {
    Expression::Payload { header: Header::Network, offset: SOURCE_OFFSET, length: 4, into }
}

pub(in crate::network) fn destination(into: Register) -> Expression {
    Expression::Payload { header: Header::Network, offset: DESTINATION_OFFSET, length: 4, into }
}

/// Loads what names a Service port: destination address, protocol and destination port, each in a register of its own.
pub(in crate::network) fn service_key(first: Register) -> Vec<Expression> {
    vec![
        destination(first),
        Expression::Meta { key: Meta::TransportProtocol, into: Register(first.0 + 1) },
        Expression::Payload { header: Header::Transport, offset: DESTINATION_PORT_OFFSET, length: 2, into: Register(first.0 + 2) },
    ]
}

pub(in crate::network) fn source_in(range: Ipv4Net) -> Vec<Expression> {
    address_in(source(SCRATCH), range, Comparison::Equal)
}

pub(in crate::network) fn not_source_in(range: Ipv4Net) -> Vec<Expression> {
    address_in(source(SCRATCH), range, Comparison::NotEqual)
}

pub(in crate::network) fn destination_in(range: Ipv4Net) -> Vec<Expression> {
    address_in(destination(SCRATCH), range, Comparison::Equal)
}

pub(in crate::network) fn not_destination_in(range: Ipv4Net) -> Vec<Expression> {
    address_in(destination(SCRATCH), range, Comparison::NotEqual)
}

/// The connection was made to this address, whatever it was translated to.
pub(in crate::network) fn original_destination(address: Ipv4Addr) -> Vec<Expression> {
    vec![
        Expression::Conntrack { key: Conntrack::OriginalDestination, into: SCRATCH },
        Expression::Compare { register: SCRATCH, comparison: Comparison::Equal, value: address.octets().to_vec() },
    ]
}

pub(in crate::network) fn protocol(protocol: Protocol) -> Vec<Expression> {
    vec![
        Expression::Meta { key: Meta::TransportProtocol, into: SCRATCH },
        Expression::Compare { register: SCRATCH, comparison: Comparison::Equal, value: vec![protocol.number()] },
    ]
}

/// Needs [`protocol`] before it.
pub(in crate::network) fn destination_port(ports: RangeInclusive<u16>) -> Vec<Expression> {
    let compare = |comparison, port: u16| Expression::Compare { register: SCRATCH, comparison, value: port.to_be_bytes().to_vec() };
    let mut list = vec![Expression::Payload { header: Header::Transport, offset: DESTINATION_PORT_OFFSET, length: 2, into: SCRATCH }];
    if ports.start() == ports.end() {
        list.push(compare(Comparison::Equal, *ports.start()));
    } else {
        list.extend([compare(Comparison::AtLeast, *ports.start()), compare(Comparison::AtMost, *ports.end())]);
    }
    list
}

/// The packet belongs to a connection that was let through before, or is an ICMP error about one.
pub(in crate::network) fn replies() -> Vec<Expression> {
    has_bits(Expression::Conntrack { key: Conntrack::State, into: SCRATCH }, ESTABLISHED | RELATED)
}

pub(in crate::network) fn new_connection() -> Vec<Expression> {
    has_bits(Expression::Conntrack { key: Conntrack::State, into: SCRATCH }, NEW)
}

pub(in crate::network) fn connection_was_redirected() -> Vec<Expression> {
    has_bits(Expression::Conntrack { key: Conntrack::Status, into: SCRATCH }, DESTINATION_TRANSLATED)
}

/// The sending socket's `SO_MARK`.
pub(in crate::network) fn socket_mark(mark: u32) -> Vec<Expression> {
    equals(Meta::Mark, mark)
}

/// The packet was not sent with this mark.
pub(in crate::network) fn not_marked(mark: u32) -> Vec<Expression> {
    vec![
        Expression::Meta { key: Meta::Mark, into: SCRATCH },
        Expression::Compare { register: SCRATCH, comparison: Comparison::NotEqual, value: mark.to_ne_bytes().to_vec() },
    ]
}

/// What the frame carries; for tables that see every frame of a device.
pub(in crate::network) fn ether_type(number: u16) -> Vec<Expression> {
    vec![
        Expression::Meta { key: Meta::EtherType, into: SCRATCH },
        Expression::Compare { register: SCRATCH, comparison: Comparison::Equal, value: number.to_be_bytes().to_vec() },
    ]
}

/// The sending process's group.
pub(in crate::network) fn socket_group(gid: u32) -> Vec<Expression> {
    equals(Meta::SocketGroup, gid)
}

/// The packet leaves by this interface, or came by it where it is not sent.
pub(in crate::network) fn interface(which: Meta, index: u32) -> Vec<Expression> {
    equals(which, index)
}

fn equals(key: Meta, value: u32) -> Vec<Expression> {
    vec![
        Expression::Meta { key, into: SCRATCH },
        Expression::Compare { register: SCRATCH, comparison: Comparison::Equal, value: value.to_ne_bytes().to_vec() },
    ]
}

fn has_bits(load: Expression, bits: u32) -> Vec<Expression> {
    vec![
        load,
        Expression::Mask { register: SCRATCH, mask: bits.to_ne_bytes().to_vec() },
        Expression::Compare { register: SCRATCH, comparison: Comparison::NotEqual, value: vec![0; 4] },
    ]
}

fn address_in(load: Expression, range: Ipv4Net, comparison: Comparison) -> Vec<Expression> {
    let compare = |comparison, value: Ipv4Addr| Expression::Compare { register: SCRATCH, comparison, value: value.octets().to_vec() };
    if range.prefix_len() == 0 {
        // Everything is in it: no condition, or one that never holds.
        return match comparison {
            Comparison::Equal => Vec::new(),
            _ => vec![load, compare(Comparison::Equal, Ipv4Addr::UNSPECIFIED), compare(Comparison::NotEqual, Ipv4Addr::UNSPECIFIED)],
        };
    }
    vec![load, Expression::Mask { register: SCRATCH, mask: range.netmask().octets().to_vec() }, compare(comparison, range.network())]
}

impl Protocol {
    /// The number in the IP header.
    pub(in crate::network) fn number(self) -> u8 {
        match self {
            Self::Tcp => libc::IPPROTO_TCP as u8,
            Self::Udp => libc::IPPROTO_UDP as u8,
        }
    }
}
