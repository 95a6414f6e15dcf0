//! Netlink requests, encoded and acknowledged: what [`super::links`] (rtnetlink) and [`super::nftables`] (nfnetlink)
//! have in common.
//!
//! The kernel handles netlink requests inside `sendmsg(2)`, so a request is as quick as a system call and is made
//! directly rather than through an executor.

mod message;
mod socket;

pub(super) use message::{Attributes, Message, attributes_in};
pub(super) use socket::NetlinkSocket;
