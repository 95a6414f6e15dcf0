//! The cluster's DNS server: a pod like any other that follows Namespaces, Services and EndpointSlices through the API
//! and answers for the cluster's domain, as CoreDNS' `kubernetes` plugin does.
//!
//! There is no upstream: no traffic leaves the lab, so names outside of the cluster's domain are refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

mod follow;
mod health;
mod server;
mod zone;

use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{RwLock, watch};

/// Kinds that must have been listed before answers mean anything.
const FOLLOWED: usize = 3;

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
    /// Seconds that answers may be cached (kubeadm's choice).
    #[arg(long, default_value_t = 30)]
    pub ttl: u32,
}

/// Why the DNS server ended.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot reach the Kubernetes API from this pod: {0}")]
    Api(String),
    #[error("the DNS listener failed: {0}")]
    Server(String),
}

/// Serves until SIGTERM or SIGINT ends it.
///
/// # Errors
/// When a port is taken or the pod has no API credentials.
pub async fn run(args: DnsArgs) -> Result<(), DnsError> {
    let client = kube::Client::try_default().await.map_err(|e| DnsError::Api(e.to_string()))?;
    let address = SocketAddr::new(args.listen, args.port);
    let listen = |address| move |source| DnsError::Listen { address, source };
    let udp = UdpSocket::bind(address).await.map_err(listen(address))?;
    let tcp = TcpListener::bind(address).await.map_err(listen(address))?;
    let zone = Arc::new(RwLock::new(zone::Zone::new(&args.domain)));
    let (synced, ready) = watch::channel(0);
    let health_address = SocketAddr::new(args.listen, args.health_port);
    let ready_address = SocketAddr::new(args.listen, args.ready_port);
    let health = health::listen(health_address, "/health", None).await.map_err(listen(health_address))?;
    let readiness = health::listen(ready_address, "/ready", Some(ready)).await.map_err(listen(ready_address))?;
    let mut server = server::start(udp, tcp, zone.clone(), args.ttl);
    log(&format!("{}.:{}", args.domain, args.port));
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| DnsError::Server(e.to_string()))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| DnsError::Server(e.to_string()))?;
    let outcome = tokio::select! {
        done = server.block_until_done() => done.map_err(|e| DnsError::Server(e.to_string())),
        () = follow::run(client, zone, synced) => Err(DnsError::Api("the watches ended".to_owned())),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    health.abort();
    readiness.abort();
    log("[INFO] shutting down");
    outcome
}

/// The pod's log. A log that nobody reads any more is no reason to stop answering.
fn log(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}
