//! A small network to test with, and peers that talk over it.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use embedded_cluster::network::{DataPlane, DataPlaneConfig, Netns, PodNetwork};
use libtest_mimic::{Failed, Trial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub type Outcome = Result<(), Failed>;

/// Long enough for any packet that travels at all, short against the first retransmission of a SYN (one second), so that
/// a connection within it was not dropped on the way.
pub const SOON: Duration = Duration::from_millis(700);

/// Wraps an async test into one that runs in its own runtime.
pub fn test<F: Future<Output = Outcome> + 'static>(name: &str, body: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let outcome = runtime.block_on(async { timeout(Duration::from_secs(60), body()).await });
        runtime.shutdown_background();
        outcome.map_err(|_| Failed::from("the test did not end within a minute"))?
    })
}

pub fn ensure(condition: bool, otherwise: impl Into<String>) -> Outcome {
    if condition { Ok(()) } else { Err(Failed::from(otherwise.into())) }
}

/// Two nodes: `node-0` with pods in 10.244.0.0/24, `node-1` with pods in 10.244.1.0/24.
pub async fn two_nodes() -> Result<DataPlane, Failed> {
    let plane = DataPlane::new(DataPlaneConfig::default()).await?;
    for index in 0..2 {
        plane.add_node(&format!("node-{index}"), node_address(index), format!("10.244.{index}.0/24").parse()?).await?;
    }
    Ok(plane)
}

pub fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 18, 0, 2 + index)
}

/// Attaches a pod that answers each TCP connection on `port` with its own address and the client's, one a line, and then
/// echoes.
pub async fn serving_pod(plane: &DataPlane, node: &str, name: &str, port: u16) -> Result<PodNetwork, Failed> {
    let pod = plane.attach_pod(node, name).await?;
    serve(&pod.netns, pod.ip, port).await?;
    Ok(pod)
}

pub async fn serve(netns: &Netns, own: Ipv4Addr, port: u16) -> Result<(), Failed> {
    let listener = netns.tcp_listen(SocketAddr::from(([0, 0, 0, 0], port))).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(format!("{own}\n{}\n", peer.ip()).as_bytes()).await?;
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Ok(())
}

/// A connection to a [`serving_pod`].
pub struct Conversation {
    pub stream: TcpStream,
    /// Who answered, by its own account.
    pub server: Ipv4Addr,
    /// The client's address as the server sees it.
    pub client_seen: Ipv4Addr,
}

impl Conversation {
    pub async fn open(from: &Netns, to: SocketAddr) -> io::Result<Self> {
        let conversation = async {
            let mut stream = from.tcp_connect(to).await?;
            let mut line = async || {
                let mut text = String::new();
                loop {
                    match stream.read_u8().await? {
                        b'\n' => return text.parse().map_err(io::Error::other),
                        byte => text.push(char::from(byte)),
                    }
                }
            };
            let (server, client_seen) = (line().await?, line().await?);
            Ok(Self { stream, server, client_seen })
        };
        timeout(SOON, conversation).await?
    }

    /// Sends bytes and waits for their echo.
    pub async fn echo(&mut self) -> io::Result<Duration> {
        let started = Instant::now();
        let exchange = async {
            self.stream.write_all(b"ping").await?;
            self.stream.read_exact(&mut [0; 4]).await
        };
        timeout(Duration::from_secs(5), exchange).await??;
        Ok(started.elapsed())
    }
}

/// How an attempt to connect ended.
pub async fn connect_error(from: &Netns, to: SocketAddr) -> io::ErrorKind {
    match Conversation::open(from, to).await {
        Ok(_) => io::ErrorKind::Other,
        Err(error) => error.kind(),
    }
}
