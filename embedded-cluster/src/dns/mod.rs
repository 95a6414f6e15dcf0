//! The cluster's DNS server: a pod like any other that follows Services, EndpointSlices and Pods through the API and
//! answers for `cluster.local`, as CoreDNS' `kubernetes` plugin does.

use std::net::{IpAddr, Ipv4Addr};

/// Command line of the container command `cluster-dns`.
#[derive(Clone, Debug, clap::Args)]
pub struct DnsArgs {
    /// Zone answered for.
    #[arg(long, default_value = "cluster.local")]
    pub domain: String,
    /// Address to listen on, UDP and TCP.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub listen: IpAddr,
    /// Port of the DNS service itself.
    #[arg(long, default_value_t = 53)]
    pub port: u16,
    /// Port of `/health`.
    #[arg(long, default_value_t = 8080)]
    pub health_port: u16,
    /// Port of `/ready`: 200 once everything has been listed.
    #[arg(long, default_value_t = 8181)]
    pub ready_port: u16,
    /// Seconds that answers may be cached.
    #[arg(long, default_value_t = 30)]
    pub ttl: u32,
}

/// Why the DNS server ended.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot reach the Kubernetes API from this pod: {0}")]
    Api(String),
    #[error("the DNS listener failed: {0}")]
    Server(String),
}

/// Serves until a signal ends it.
///
/// # Errors
/// When a port is taken or the pod has no API credentials.
pub async fn run(_args: DnsArgs) -> Result<(), DnsError> {
    Err(DnsError::Api("not served yet".to_owned()))
}
