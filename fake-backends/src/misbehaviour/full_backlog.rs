//! A listener that never accepts, its queue full.
//!
//! Mechanism: the kernel completes handshakes on its own until `backlog + 1` connections wait in the accept queue, and from then on
//! drops SYNs (net.ipv4.tcp_abort_on_overflow is 0 by default), so a client sees no answer and times out in connect(2).
//! The queue is filled here with connections of our own, so that the very first client finds it full.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use crate::Error;

/// Accept queue of the listener that is to be filled. Not 0: there the SYN queue counts as full as well, and whether a SYN gets
/// through depends on net.ipv4.tcp_syncookies.
pub(crate) const BACKLOG: u32 = 1;

/// A loopback handshake takes microseconds; a dropped SYN is sent again after one second.
const HANDSHAKE: Duration = Duration::from_millis(250);

/// Connections that keep the accept queue full as long as they live.
#[derive(Debug)]
pub(crate) struct Occupied {
    _waiting: Vec<TcpStream>,
}

/// Fills the accept queue of the listener on `address` until a handshake is no longer answered.
pub(crate) async fn occupy(address: SocketAddr) -> Result<Occupied, Error> {
    let mut target = address;
    if target.ip().is_unspecified() {
        target.set_ip(if target.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let mut waiting = Vec::new();
    // The kernel may round a backlog up; 64 is far beyond what BACKLOG can need.
    while waiting.len() < 64 {
        match timeout(HANDSHAKE, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => waiting.push(stream),
            Ok(Err(source)) => return Err(Error::FillBacklog { address, source }),
            Err(_) => break,
        }
    }
    Ok(Occupied { _waiting: waiting })
}
