//! Packet filter rules of the kernel (nf_tables), as typed values sent by netlink; the `nft` tool is not needed.
//!
//! A [`Ruleset`] is what one table shall contain; the difference to what it contains goes to the kernel as one
//! transaction. Names and numbers are those of `<linux/netfilter/nf_tables.h>`.

mod batch;
mod expression;
mod matching;
mod ruleset;

pub(super) use batch::{Batch, DeviceChain};
pub(super) use expression::{Comparison, Expression, Meta, Register, Set, Verdict};
pub(super) use matching::{
    connection_was_redirected, destination, destination_in, destination_port, ether_type, interface, new_connection, not_destination_in,
    not_marked, not_source_in, original_destination, protocol, replies, service_key, socket_group, socket_mark, source, source_in,
};
pub(super) use ruleset::{BaseChain, ChainKind, Hook, Rule, Ruleset, SetContent, replace, update};
