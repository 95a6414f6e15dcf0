//! Node ports on the host: for every TCP node port of a Service a listener on 127.0.0.1 whose connections are carried
//! into the cluster's network, to the first node.
//!
//! The listener takes the node port's own number where that is free on the host. Where it really listens is written to
//! the Service's annotation `gatelab.dev/host-address`, as `<port name or number>=<address>` joined by commas. UDP
//! node ports are served inside the cluster only.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use nix::errno::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::network::Netns;
use crate::store::{Event, Store, Typed};

const HOST_ADDRESS: &str = "gatelab.dev/host-address";
const RELAY_BUFFER: usize = 16 * 1024;

/// Follows the Services for ever. `outside` is the namespace connections enter the cluster from, `node` the address of
/// the node they go to.
pub(crate) async fn follow_services(store: Store, outside: Netns, node: Ipv4Addr) {
    let services = Typed::<Service>::new(&store);
    let mut relays: HashMap<(String, String), BTreeMap<u16, Relay>> = HashMap::new();
    let mut events = std::pin::pin!(services.watch());
    while let Some(event) = events.next().await {
        let (Event::Applied(service) | Event::Deleted(service)) = &event;
        let key = (service.metadata.namespace.clone().unwrap_or_default(), service.metadata.name.clone().unwrap_or_default());
        let wanted = if matches!(event, Event::Applied(_)) { tcp_node_ports(service) } else { BTreeMap::new() };
        if wanted.is_empty() && !relays.contains_key(&key) && !service.metadata.annotations.iter().flatten().any(|(k, _)| k == HOST_ADDRESS)
        {
            // Most Services have nothing to do with the host.
            continue;
        }
        let held = relays.entry(key.clone()).or_default();
        held.retain(|port, _| wanted.contains_key(port));
        for port in wanted.keys() {
            if !held.contains_key(port) {
                match Relay::open(*port, outside.clone(), (node, *port).into()).await {
                    Ok(relay) => drop(held.insert(*port, relay)),
                    Err(error) => tracing::error!(service = key.1, port, %error, "no host port for a node port"),
                }
            }
        }
        let addresses: Vec<String> =
            wanted.iter().filter_map(|(port, name)| held.get(port).map(|relay| format!("{name}={}", relay.address))).collect();
        if held.is_empty() {
            relays.remove(&key);
        }
        if matches!(event, Event::Applied(_)) {
            annotate(&services, &key, &addresses.join(","));
        }
    }
}

/// Node port -> the port's name, or its number where it has none.
fn tcp_node_ports(service: &Service) -> BTreeMap<u16, String> {
    let Some(spec) = &service.spec else { return BTreeMap::new() };
    if !matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
        return BTreeMap::new();
    }
    let tcp = spec.ports.iter().flatten().filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
    tcp.filter_map(|port| {
        let node_port = u16::try_from(port.node_port?).ok()?;
        Some((node_port, port.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| port.port.to_string())))
    })
    .collect()
}

fn annotate(services: &Typed<Service>, (namespace, name): &(String, String), addresses: &str) {
    let changed = services.modify(namespace, name, |service| {
        let annotations = service.metadata.annotations.get_or_insert_default();
        if addresses.is_empty() {
            annotations.remove(HOST_ADDRESS);
        } else {
            annotations.insert(HOST_ADDRESS.to_owned(), addresses.to_owned());
        }
        if annotations.is_empty() {
            service.metadata.annotations = None;
        }
        Ok(())
    });
    // The Service may have gone meanwhile; its deletion is the next event.
    if let Err(fault) = changed {
        tracing::debug!(%fault, name, "the host address was not written");
    }
}

/// Listens until dropped; connections that are open then are cut.
struct Relay {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    async fn open(preferred: u16, outside: Netns, target: SocketAddr) -> io::Result<Self> {
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, preferred)).await {
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?
            }
            bound => bound?,
        };
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, outside, target)).abort_handle();
        Ok(Self { address, accepting })
    }
}

async fn accept(listener: TcpListener, outside: Netns, target: SocketAddr) {
    // Dropped with this task, and with it the connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let outside = outside.clone();
                    connections.spawn(async move {
                        match outside.tcp_connect(target).await {
                            Ok(upstream) => relay(client, upstream).await,
                            // The client was accepted already, so a reset is the nearest to "refused" that is left.
                            Err(_) => reset(&client),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a host port cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
        }
    }
}

/// Carries bytes both ways until both sides have finished. The end of one direction is passed on as FIN while the other
/// goes on, and a reset as a reset, so that a client sees what it would see without the relay.
async fn relay(mut client: TcpStream, mut upstream: TcpStream) {
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let outcome = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_upstream, mut to_upstream) = upstream.split();
        let forth = carry(&mut from_client, &mut to_upstream);
        let back = carry(&mut from_upstream, &mut to_client);
        futures::future::try_join(forth, back).await
    };
    if outcome.is_err() {
        reset(&client);
        reset(&upstream);
    }
}

async fn carry(from: &mut (impl tokio::io::AsyncRead + Unpin), to: &mut (impl tokio::io::AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; RELAY_BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            // ENOTCONN: the other side is gone altogether, which its own direction reports.
            return match to.shutdown().await {
                Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => Ok(()),
                done => done,
            };
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// SO_LINGER of zero: closing sends RST instead of FIN.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (a.unwrap(), b.unwrap().0)
    }

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        tokio::spawn(relay(near, far));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn a_reset_arrives_as_a_reset() {
        let ((mut client, near), (far, server)) = (pair().await, pair().await);
        tokio::spawn(relay(near, far));
        reset(&server);
        drop(server);
        let error = client.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn only_tcp_ports_of_services_with_node_ports_are_served() {
        let service = |kind: &str| -> Service {
            serde_json::from_value(json!({"spec": {"type": kind, "ports": [
                {"name": "http", "port": 80, "nodePort": 30080},
                {"port": 443, "nodePort": 30443, "protocol": "TCP"},
                {"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"},
            ]}}))
            .unwrap()
        };
        let expected = BTreeMap::from([(30080, "http".to_owned()), (30443, "443".to_owned())]);
        assert_eq!(tcp_node_ports(&service("LoadBalancer")), expected);
        assert_eq!(tcp_node_ports(&service("ClusterIP")), BTreeMap::new());
    }
}
