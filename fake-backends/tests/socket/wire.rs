//! A client that shows what the kernel told it.

use std::{io, net::SocketAddr, time::Duration};

use fake_backends::{Backend, Config};
use nix::libc;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Far beyond what any step takes; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a backend on free loopback ports with these settings.
pub async fn backend(yaml: &str) -> Backend {
    let mut config = Config::from_yaml(yaml, "test").unwrap();
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    config.server.listen = free;
    config.server.health_listen = config.server.health_listen.map(|_| free);
    config.admin.listen = free;
    Backend::start(config).await.unwrap()
}

/// How a connection ended, as read(2) tells it.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Errno(i32),
}

pub const RESET: End = End::Errno(libc::ECONNRESET);

#[derive(Debug)]
pub struct Received {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub struct Client<S = TcpStream> {
    stream: S,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        Client { stream: timeout(PATIENCE, TcpStream::connect(address)).await.unwrap().unwrap() }
    }

    pub async fn to(backend: &Backend) -> Client {
        Client::connect(backend.address().unwrap()).await
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Client<S> {
        Client { stream }
    }

    pub fn into_inner(self) -> S {
        self.stream
    }

    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// A GET whose whole response is read.
    pub async fn get(&mut self, path: &str) -> Received {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        self.response().await
    }

    /// Reads one response with `Content-Length`.
    pub async fn response(&mut self) -> Received {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            self.more(&mut bytes).await;
        };
        let body = bytes.split_off(head + 4);
        let head = String::from_utf8(bytes).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut received = Received { status, head, body };
        let length: usize = received.header("content-length").map_or(0, |length| length.parse().unwrap());
        while received.body.len() < length {
            self.more(&mut received.body).await;
        }
        received
    }

    async fn more(&mut self, bytes: &mut Vec<u8>) {
        let mut buffer = [0; 65536];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("waited in vain for a response").unwrap();
        assert!(read > 0, "the connection was closed within a response: {:?}", String::from_utf8_lossy(bytes));
        bytes.extend_from_slice(&buffer[..read]);
    }

    /// Everything up to the end of the connection, and the end.
    pub async fn until_end(&mut self) -> (Vec<u8>, End) {
        let mut bytes = Vec::new();
        let result: io::Result<usize> = timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await.expect("the connection stayed open");
        let end = match result {
            Ok(_) => End::Fin,
            Err(error) => End::Errno(error.raw_os_error().unwrap_or_default()),
        };
        (bytes, end)
    }

    pub async fn end(&mut self) -> End {
        let (bytes, end) = self.until_end().await;
        assert!(bytes.is_empty(), "unexpected {:?}", String::from_utf8_lossy(&bytes));
        end
    }

    /// Whether the connection stays open without a byte for so long.
    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.stream.read(&mut [0])).await.is_err()
    }
}

/// Waits until `done` holds.
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}
