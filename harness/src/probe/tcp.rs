//! Connecting: by name or address, with the times of both steps.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tokio::net::TcpStream;

use super::dns::Resolver;
use super::failure::Failure;
use super::record::{Micros, Outcome, Phase, Timings};

/// Splits `host:port`; IPv6 addresses stand in brackets.
pub fn split_address(address: &str) -> Result<(&str, u16), Failure> {
    let invalid = || Failure::new(Outcome::ProbeError, Phase::Queued, format!("address `{address}` is not host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    Ok((host, port.parse().map_err(|_| invalid())?))
}

/// Resolves and connects. `phase` follows along, so that a caller whose deadline passes knows in what.
pub async fn connect(
    address: &str,
    resolver: &Resolver,
    due: Instant,
    timings: &mut Timings,
    phase: &mut Phase,
) -> Result<TcpStream, Failure> {
    let (host, port) = split_address(address)?;
    *phase = Phase::Resolve;
    let candidates = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => {
            let found = resolver.lookup(host).await?;
            timings.resolved = Some(Micros::from(due.elapsed()));
            found
        }
    };
    *phase = Phase::Connect;
    let mut last = Failure::new(Outcome::NameNotFound, Phase::Resolve, format!("`{host}` has no address"));
    for ip in candidates {
        match TcpStream::connect(SocketAddr::new(ip, port)).await {
            Ok(stream) => {
                timings.connected = Some(Micros::from(due.elapsed()));
                // Nagle's algorithm would hold a body back that follows its head in a second segment.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Failure::from_io(&error, Phase::Connect),
        }
    }
    Err(last)
}
