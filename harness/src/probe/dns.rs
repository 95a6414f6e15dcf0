//! Name resolution as a pod's resolver does it (search list, `ndots`, UDP to the servers of /etc/resolv.conf), written out
//! because getaddrinfo tells "no such name" and "no answer" apart in words only.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;

use super::failure::Failure;
use super::record::{Outcome, Phase};

/// resolv.conf(5): `timeout` and `attempts` unless the file says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_ATTEMPTS: u32 = 2;

/// The resolver configuration of the place where the probe runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
    hosts: Vec<(IpAddr, Vec<String>)>,
}

impl Resolver {
    /// Reads /etc/resolv.conf and /etc/hosts; what is missing is as if it were empty.
    pub fn from_system() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/etc/resolv.conf"), &read("/etc/hosts"))
    }

    pub fn parse(resolv_conf: &str, hosts: &str) -> Self {
        let mut resolver = Resolver {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: DEFAULT_TIMEOUT,
            attempts: DEFAULT_ATTEMPTS,
            hosts: Vec::new(),
        };
        for line in resolv_conf.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    resolver.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| resolver.set_option(option)),
                _ => {}
            }
        }
        for line in hosts.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            if let Some(ip) = words.next().and_then(|word| word.parse().ok()) {
                resolver.hosts.push((ip, words.map(str::to_owned).collect()));
            }
        }
        resolver
    }

    fn set_option(&mut self, option: &str) {
        match option.split_once(':') {
            Some(("ndots", value)) => self.ndots = value.parse().unwrap_or(self.ndots),
            Some(("timeout", value)) => self.timeout = value.parse().map_or(self.timeout, Duration::from_secs),
            Some(("attempts", value)) => self.attempts = value.parse().unwrap_or(self.attempts),
            _ => {}
        }
    }

    /// IPv4 addresses of a name.
    ///
    /// [`Outcome::NameNotFound`] when every candidate of the search list is NXDOMAIN or empty, [`Outcome::NameFailed`] when
    /// no server answers, or one answers with a failure.
    pub async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        let in_hosts: Vec<IpAddr> =
            self.hosts.iter().filter(|(_, names)| names.iter().any(|name| name == host)).map(|(ip, _)| *ip).collect();
        if !in_hosts.is_empty() {
            return Ok(in_hosts);
        }
        let mut failure = Failure::new(Outcome::NameFailed, Phase::Resolve, "no name server is configured");
        for candidate in self.candidates(host) {
            match self.ask(&candidate).await {
                Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                Ok(_) => failure = Failure::new(Outcome::NameNotFound, Phase::Resolve, format!("`{candidate}` has no address")),
                Err(error) if error.outcome == Outcome::NameNotFound => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    /// resolv.conf(5): names with fewer than `ndots` dots go through the search list first.
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![format!("{absolute}.")];
        }
        let searched = self.search.iter().map(|domain| format!("{host}.{}.", domain.trim_end_matches('.')));
        let itself = std::iter::once(format!("{host}."));
        if host.matches('.').count() >= self.ndots { itself.chain(searched).collect() } else { searched.chain(itself).collect() }
    }

    async fn ask(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let mut failure = Failure::new(Outcome::NameFailed, Phase::Resolve, "no name server is configured");
        for _ in 0..self.attempts {
            for server in &self.servers {
                match tokio::time::timeout(self.timeout, ask_server(*server, name)).await {
                    Ok(Ok(addresses)) => return Ok(addresses),
                    Ok(Err(error)) if error.outcome == Outcome::NameNotFound => return Err(error),
                    Ok(Err(error)) => failure = error,
                    Err(_) => {
                        failure = Failure::new(Outcome::NameFailed, Phase::Resolve, format!("{server} did not answer for `{name}`"));
                    }
                }
            }
        }
        Err(failure)
    }
}

async fn ask_server(server: SocketAddr, name: &str) -> Result<Vec<IpAddr>, Failure> {
    let probe_error = |detail: String| Failure::new(Outcome::ProbeError, Phase::Resolve, detail);
    let name = Name::from_ascii(name).map_err(|error| probe_error(format!("`{name}` is no host name: {error}")))?;
    let id = rand::random::<u16>();
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), RecordType::A));
    let packet = query.to_vec().map_err(|error| probe_error(error.to_string()))?;

    let unspecified: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let io = |error: std::io::Error| {
        let mut failure = Failure::from_io(&error, Phase::Resolve);
        failure.outcome = Outcome::NameFailed;
        failure
    };
    // A connected socket hears ICMP errors: a dead server shows as ECONNREFUSED instead of silence.
    let socket = UdpSocket::bind(unspecified).await.map_err(io)?;
    socket.connect(server).await.map_err(io)?;
    socket.send(&packet).await.map_err(io)?;
    let mut buffer = [0u8; 4096];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(io)?;
        let Ok(answer) = Message::from_vec(&buffer[..length]) else { continue };
        if answer.metadata.id != id {
            continue;
        }
        return match answer.metadata.response_code {
            ResponseCode::NoError => Ok(answer
                .answers
                .iter()
                .filter_map(|record| match &record.data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    _ => None,
                })
                .collect()),
            ResponseCode::NXDomain => Err(Failure::new(Outcome::NameNotFound, Phase::Resolve, format!("NXDOMAIN for `{name}`"))),
            code => Err(Failure::new(Outcome::NameFailed, Phase::Resolve, format!("{code} for `{name}`"))),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";

    #[test]
    fn short_names_go_through_the_search_list_first() {
        let resolver = Resolver::parse(POD, "");
        assert_eq!(
            resolver.candidates("shop"),
            ["shop.shop.svc.cluster.local.", "shop.svc.cluster.local.", "shop.cluster.local.", "shop."]
        );
        assert_eq!(resolver.candidates("shop.test."), ["shop.test."]);
    }

    #[tokio::test]
    async fn hosts_file_wins() {
        let resolver = Resolver::parse("", "127.0.0.1 localhost # me\n10.244.0.7 client\n");
        assert_eq!(resolver.lookup("client").await.unwrap(), [IpAddr::from([10, 244, 0, 7])]);
    }

    async fn server(code: ResponseCode) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0u8; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
                answer.metadata.response_code = code;
                socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn no_such_name_and_a_failing_server_differ() {
        let mut resolver = Resolver::parse("", "");
        resolver.servers = vec![server(ResponseCode::NXDomain).await];
        assert_eq!(resolver.lookup("gone").await.unwrap_err().outcome, Outcome::NameNotFound);
        resolver.servers = vec![server(ResponseCode::ServFail).await];
        assert_eq!(resolver.lookup("gone").await.unwrap_err().outcome, Outcome::NameFailed);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_shows_its_errno() {
        let mut resolver = Resolver::parse("", "");
        let free = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        resolver.servers = vec![free];
        let failure = resolver.lookup("gone").await.unwrap_err();
        assert_eq!((failure.outcome, failure.errno.as_deref()), (Outcome::NameFailed, Some("ECONNREFUSED")));
    }
}
