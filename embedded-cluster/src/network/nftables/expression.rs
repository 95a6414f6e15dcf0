//! Expressions: the instructions of the kernel's packet filter. They load fields into registers, compare, look up, and
//! decide.

use std::sync::Arc;
use std::time::Duration;

use crate::network::netlink::Attributes;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_LIST_ELEM: u16 = 1;

const NFPROTO_IPV4: u32 = 2;
const NFT_NAT_SNAT: u32 = 0;
const NFT_NAT_DNAT: u32 = 1;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
const NFT_NG_RANDOM: u32 = 1;
const NFT_REJECT_ICMP_UNREACH: u32 = 0;
const ICMP_PORT_UNREACHABLE: u8 = 3;
const NFT_DYNSET_OP_UPDATE: u32 = 1;

/// One of the sixteen 4-byte registers. Longer values take consecutive ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::network) struct Register(pub(in crate::network) u8);

impl Register {
    /// `NFT_REG32_00` and on.
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::network) enum Verdict {
    Accept,
    Drop,
    Return,
    /// Continues here when the other chain comes to no verdict.
    Jump(Arc<str>),
    /// Continues where this chain was jumped to from.
    Goto(Arc<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::network) enum Header {
    Network = 1,
    Transport = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::network) enum Meta {
    EtherType = 1,
    Mark = 3,
    /// Index of the interface the packet came in by.
    InputInterface = 4,
    OutputInterface = 5,
    SocketGroup = 11,
    TransportProtocol = 16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::network) enum Conntrack {
    State = 0,
    Status = 2,
    /// Destination of the connection's first packet before translation.
    OriginalDestination = 20,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::network) enum Comparison {
    Equal = 0,
    NotEqual = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// What a lookup searches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::network) enum Set {
    Named(String),
    /// Belongs to its rule and goes with it. Keys, with data where it is a map.
    Anonymous {
        key_length: u32,
        data_length: Option<u32>,
        elements: Vec<(Vec<u8>, Vec<u8>)>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::network) enum Expression {
    /// Loads bytes of a header.
    Payload {
        header: Header,
        offset: u32,
        length: u32,
        into: Register,
    },
    Meta {
        key: Meta,
        into: Register,
    },
    Conntrack {
        key: Conntrack,
        into: Register,
    },
    /// Ends the rule unless it holds. Values are compared as bytes, so in network order for "at most".
    Compare {
        register: Register,
        comparison: Comparison,
        value: Vec<u8>,
    },
    /// Keeps the bits of the mask.
    Mask {
        register: Register,
        mask: Vec<u8>,
    },
    /// Ends the rule unless the key is in the set.
    Contained {
        key: Register,
        set: Set,
    },
    /// Loads what the map has under the key; ends the rule where it has nothing.
    Lookup {
        key: Register,
        map: Set,
        into: Register,
    },
    /// Carries out the verdict the map has under the key.
    Decide {
        key: Register,
        map: String,
    },
    Immediate {
        into: Register,
        value: Vec<u8>,
    },
    /// A random number below `modulus`, in the machine's byte order.
    Random {
        modulus: u32,
        into: Register,
    },
    /// Translates the destination to the address and port in the registers.
    TranslateDestination {
        address: Register,
        port: Register,
    },
    /// Translates the source to the address in the register, at a random port.
    TranslateSource {
        address: Register,
    },
    /// Translates the destination to this machine, at the port in the register.
    Redirect {
        port: Register,
    },
    /// Hands the frame to the device whose index is in the register; in tables of a device only.
    Forward {
        device: Register,
    },
    /// Answers with an ICMP port unreachable.
    RejectPortUnreachable,
    /// Adds the key to a named set, or renews its time there.
    Remember {
        key: Register,
        set: String,
        timeout: Duration,
    },
    /// Counts packets and bytes, for people who list the rules.
    Counter,
    Verdict(Verdict),
}

impl Verdict {
    /// Content of an `NFTA_*_DATA` attribute.
    pub(super) fn data(&self) -> Attributes {
        const NF_DROP: i32 = 0;
        const NF_ACCEPT: i32 = 1;
        const NFT_JUMP: i32 = -3;
        const NFT_GOTO: i32 = -4;
        const NFT_RETURN: i32 = -5;
        let (code, chain) = match self {
            Self::Accept => (NF_ACCEPT, None),
            Self::Drop => (NF_DROP, None),
            Self::Return => (NFT_RETURN, None),
            Self::Jump(chain) => (NFT_JUMP, Some(chain)),
            Self::Goto(chain) => (NFT_GOTO, Some(chain)),
        };
        let mut verdict = Attributes::new().bytes(NFTA_VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            verdict = verdict.string(NFTA_VERDICT_CHAIN, chain);
        }
        Attributes::new().nested(NFTA_DATA_VERDICT, verdict)
    }
}

impl Expression {
    /// Adds the expression to a rule's list. `anonymous` gives the number under which this transaction knows the
    /// expression's anonymous set, if it has one.
    pub(super) fn append_to(&self, list: Attributes, anonymous: Option<u32>) -> Attributes {
        let (name, data) = self.encode(anonymous);
        list.nested(NFTA_LIST_ELEM, Attributes::new().string(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, data))
    }

    pub(super) fn anonymous_set(&self) -> Option<&Set> {
        match self {
            Self::Contained { set, .. } | Self::Lookup { map: set, .. } if matches!(set, Set::Anonymous { .. }) => Some(set),
            _ => None,
        }
    }

    fn encode(&self, anonymous: Option<u32>) -> (&'static str, Attributes) {
        let list = Attributes::new();
        match self {
            Self::Payload { header, offset, length, into } => {
                ("payload", list.u32_be(1, into.number()).u32_be(2, *header as u32).u32_be(3, *offset).u32_be(4, *length))
            }
            Self::Meta { key, into } => ("meta", list.u32_be(1, into.number()).u32_be(2, *key as u32)),
            Self::Conntrack { key, into } => {
                let list = list.u32_be(1, into.number()).u32_be(2, *key as u32);
                // The direction: 0 is that of the first packet.
                ("ct", if *key == Conntrack::OriginalDestination { list.bytes(3, &[0]) } else { list })
            }
            Self::Compare { register, comparison, value: data } => {
                ("cmp", list.u32_be(1, register.number()).u32_be(2, *comparison as u32).nested(3, value(data)))
            }
            Self::Mask { register, mask } => (
                "bitwise",
                list.u32_be(1, register.number())
                    .u32_be(2, register.number())
                    .u32_be(3, mask.len() as u32)
                    .nested(4, value(mask))
                    .nested(5, value(&vec![0; mask.len()])),
            ),
            Self::Contained { key, set } => ("lookup", lookup(set, anonymous, *key)),
            Self::Lookup { key, map, into } => ("lookup", lookup(map, anonymous, *key).u32_be(3, into.number())),
            Self::Decide { key, map } => ("lookup", list.string(1, map).u32_be(2, key.number()).u32_be(3, VERDICT_REGISTER)),
            Self::Immediate { into, value: data } => ("immediate", list.u32_be(1, into.number()).nested(2, value(data))),
            Self::Random { modulus, into } => {
                ("numgen", list.u32_be(1, into.number()).u32_be(2, *modulus).u32_be(3, NFT_NG_RANDOM).u32_be(4, 0))
            }
            Self::TranslateDestination { address, port } => {
                ("nat", list.u32_be(1, NFT_NAT_DNAT).u32_be(2, NFPROTO_IPV4).u32_be(3, address.number()).u32_be(5, port.number()))
            }
            // The random port is kube-proxy's choice too: without it two clients with one source port collide now and then.
            Self::TranslateSource { address } => (
                "nat",
                list.u32_be(1, NFT_NAT_SNAT).u32_be(2, NFPROTO_IPV4).u32_be(3, address.number()).u32_be(7, NF_NAT_RANGE_PROTO_RANDOM_FULLY),
            ),
            Self::Redirect { port } => ("redir", list.u32_be(1, port.number())),
            Self::Forward { device } => ("fwd", list.u32_be(1, device.number())),
            Self::RejectPortUnreachable => ("reject", list.u32_be(1, NFT_REJECT_ICMP_UNREACH).bytes(2, &[ICMP_PORT_UNREACHABLE])),
            Self::Remember { key, set, timeout } => (
                "dynset",
                list.string(1, set).u32_be(3, NFT_DYNSET_OP_UPDATE).u32_be(4, key.number()).u64_be(6, timeout.as_millis() as u64),
            ),
            Self::Counter => ("counter", list),
            Self::Verdict(verdict) => ("immediate", list.u32_be(1, VERDICT_REGISTER).nested(2, verdict.data())),
        }
    }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(NFTA_DATA_VALUE, bytes)
}

/// Name that the kernel replaces by a free one.
pub(super) const ANONYMOUS_SET: &str = "__set%d";

fn lookup(set: &Set, anonymous: Option<u32>, key: Register) -> Attributes {
    let (name, number) = match set {
        Set::Named(name) => (name.as_str(), None),
        Set::Anonymous { .. } => (ANONYMOUS_SET, anonymous),
    };
    let list = Attributes::new().string(1, name).u32_be(2, key.number());
    match number {
        Some(number) => list.u32_be(4, number),
        None => list,
    }
}
