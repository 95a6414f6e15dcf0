//! The admin port: reads and switches a running backend. Bound to loopback by default, so that no gateway reaches it.

pub(crate) mod client;
mod routes;
pub(crate) mod server;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Where the admin port listens. Needs a restart to change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    pub listen: SocketAddr,
}

/// The admin port of a backend that was told nothing else.
pub(crate) const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9970);

impl Default for Admin {
    fn default() -> Self {
        Admin { listen: DEFAULT_ADDRESS }
    }
}
