//! The real gateways on loopback, in front of servers that each do one thing.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{ApplyError, Binary, Gateway};

mod tls;

use crate::{
    GatewayKind,
    adapter::Start,
    fetch::{self, Search, version},
    log::{LogLine, ReadLine, read_log},
    model::{
        build,
        fixtures::{SHOP, objects},
    },
};

/// The gateways that the agent configures; others need a cluster.
fn configured() -> impl Iterator<Item = GatewayKind> {
    GatewayKind::ALL.iter().copied().filter(|kind| !kind.adapter().configures_itself())
}

/// A gateway about to run, and where it listens.
pub(crate) struct Bench {
    kind: GatewayKind,
    pub gateway: Box<dyn Gateway>,
    port: u16,
    https_port: u16,
    state: tempfile::TempDir,
}

/// A port that nothing listens on (and that nothing else was given in this process' short life).
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Bench {
    /// `None`, loudly, where no gateway is to be had.
    pub(crate) fn new(kind: GatewayKind) -> Option<Self> {
        let installed = match Search::from_environment().and_then(|search| fetch::install(kind, &search, &|_| ())) {
            Ok(build) => build,
            Err(error) => {
                eprintln!("skipped: no {kind} on this machine: {error}");
                return None;
            }
        };
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().to_owned();
        let binary = Binary {
            path: installed.binary,
            library_path: version::library_path_value(&installed.library_path),
            output: Some(folder.join("log")),
        };
        let (port, https_port) = (free_port(), free_port());
        let model = build(kind, &objects(&shop(1, "workers: 1")));
        let gateway = kind.adapter().start(Start {
            binary,
            version: installed.version,
            state: folder,
            http_port: port,
            https_port,
            admin_port: 0,
            settings: model.global,
            open_files: 1024,
            name_servers: Vec::new(),
        });
        Some(Self { kind, gateway, port, https_port, state })
    }

    /// Makes the shop's configuration the running one, its single pod being at this port of loopback.
    pub(crate) async fn apply(&mut self, pod_port: u16, settings: &str) -> Result<(), ApplyError> {
        self.apply_objects(&shop(pod_port, settings)).await
    }

    async fn apply_objects(&mut self, yaml: &str) -> Result<(), ApplyError> {
        let model = build(self.kind, &objects(yaml));
        let files = self.gateway.render(&model);
        self.gateway.apply(&model, &files).await
    }

    /// Sends one request and returns status line and body.
    async fn request(&self, method: &str, host: &str, path: &str, id: &str) -> (u16, String) {
        let (address, request) = (
            SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)),
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-request-id: {id}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        );
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            (answer.split_whitespace().nth(1).unwrap().parse().unwrap(), answer)
        })
        .await
        .unwrap()
    }

    pub(crate) async fn status(&self, id: &str) -> u16 {
        self.request("GET", "shop.test", "/", id).await.0
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap()
    }

    fn log_path(&self) -> PathBuf {
        self.state.path().join("log")
    }

    /// The line of the access log about a request, once it is written.
    pub(crate) async fn access(&self, id: &str) -> ReadLine {
        for _ in 0..200 {
            let text = self.log_text();
            let lines: Vec<LogLine> = text.lines().map(|text| LogLine { text, at: None }).collect();
            let mut read = read_log(self.kind, &lines).into_iter().flatten();
            if let Some(line) = read.find(|line| line.record.of_request && line.request_id.as_deref() == Some(id)) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no access log line for {id} in\n{}", self.log_text());
    }

    /// The same line, read by the gateway's own reader.
    pub(crate) async fn access_as<T>(&self, id: &str, parse: impl Fn(&str) -> Option<T>, request_id: impl Fn(&T) -> Option<&str>) -> T {
        self.access(id).await;
        let text = self.log_text();
        text.lines().filter_map(parse).find(|access| request_id(access) == Some(id)).unwrap()
    }

    pub(crate) fn print_log(&self) {
        if std::env::var_os("GATELAB_PRINT_LOGS").is_some() {
            eprintln!("{}", self.log_text());
        }
    }
}

pub(crate) fn shop(pod_port: u16, settings: &str) -> String {
    SHOP.replace("ports: [{ name: http, port: 8080", &format!("ports: [{{ name: http, port: {pod_port}"))
        .replace("10.244.1.3], conditions: { ready: true", "127.0.0.1], conditions: { ready: true")
        .replace("10.244.0.4], conditions: { ready: true", "10.244.0.4], conditions: { ready: false")
        .replace("settings.yaml: \"\"", &format!("settings.yaml: \"{settings}\""))
}

/// A server that treats every connection the same way, until the test ends.
pub(crate) fn server(treat: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let treat = treat.clone();
            thread::spawn(move || treat(stream));
        }
    });
    port
}

/// Reads one request head; `false` at the end of the connection.
pub(crate) fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

pub(crate) fn ok_server(body: &'static str) -> u16 {
    server(move |mut stream| {
        while read_head(&mut stream) {
            let answer = format!("HTTP/1.1 200 OK\r\nserver: shop\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Answers a TLS greeting as an HTTP server does.
pub(crate) fn plaintext_server() -> u16 {
    server(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.read(&mut [0; 512]);
    })
}

/// Keeps a connection open without a word.
pub(crate) fn hold(mut stream: &TcpStream) {
    while stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
}

pub(crate) fn reset(stream: TcpStream) {
    // A close with linger 0 sends RST (socket(7), SO_LINGER)
    let socket = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &socket).unwrap();
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_in_force_when_apply_returns() {
    for kind in configured() {
        let Some(mut bench) = Bench::new(kind) else { continue };
        let (first, second) = (ok_server("first"), ok_server("second"));
        for round in 0..5 {
            for (port, body) in [(first, "first"), (second, "second")] {
                bench.apply(port, "").await.unwrap();
                let (status, answer) = bench.request("GET", "shop.test", "/", &format!("{body}-{round}")).await;
                assert_eq!(status, 200, "{answer}");
                assert!(answer.ends_with(body), "{kind} still serves the old endpoint in round {round}: {answer}");
            }
        }
        assert_eq!(bench.request("GET", "other.test", "/", "other").await.0, 404);
        bench.gateway.quit().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_services_come_and_go() {
    for kind in configured() {
        let Some(mut bench) = Bench::new(kind) else { continue };
        let port = ok_server("here");
        let with = shop(port, "");
        let empty = with.replace("conditions: { ready: true", "conditions: { ready: false");
        let gone = with.replace("service: { name: shop,", "service: { name: store,");
        let other = with.replace("host: shop.test", "host: shop.example").replace("path: /,", "path: /cart,");
        bench.apply_objects(&empty).await.unwrap();
        assert_eq!(bench.status("empty").await, 503);
        bench.apply_objects(&with).await.unwrap();
        assert_eq!(bench.status("with").await, 200);
        bench.apply_objects(&gone).await.unwrap();
        assert_eq!(bench.status("gone").await, kind.adapter().bench().missing_service, "{kind}");
        bench.apply_objects(&other).await.unwrap();
        assert_eq!(bench.status("old-host").await, 404);
        for (path, status) in [("/cart", 200), ("/cart/1", 200), ("/carts", 404), ("/", 404)] {
            assert_eq!(bench.request("GET", "shop.example", path, "paths").await.0, status, "{kind} {path}");
        }
        bench.gateway.quit().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_configuration_leaves_the_old_one_running() {
    for (kind, bad) in configured().flat_map(|kind| kind.adapter().bench().refused.iter().map(move |bad| (kind, *bad))) {
        let Some(mut bench) = Bench::new(kind) else { continue };
        let port = ok_server("here");
        bench.apply(port, "").await.unwrap();
        let error = bench.apply(port, bad).await.unwrap_err();
        let ApplyError::Rejected(reason) = error else { panic!("{kind}: {error:?}") };
        assert!(reason.contains("no_such_"), "{kind} {bad}: {reason}");
        assert_eq!(bench.status("after").await, 200);
        let other = ok_server("other");
        bench.apply(other, "").await.unwrap();
        assert!(bench.request("GET", "shop.test", "/", "later").await.1.ends_with("other"));
        bench.gateway.quit().await;
    }
}

/// A change of endpoints costs no request, however often it comes: nginx' graceful reload and Envoy's EDS both hold.
#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_lose_no_request() {
    for kind in configured() {
        let Some(mut bench) = Bench::new(kind) else { continue };
        let pods = [ok_server("first"), ok_server("second")];
        bench.apply(pods[0], "").await.unwrap();
        let (stop, port) = (Arc::new(AtomicBool::new(false)), bench.port);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || {
                    let mut failures = Vec::new();
                    let mut sent = 0;
                    while !stop.load(Ordering::Relaxed) {
                        sent += 1;
                        let mut answer = String::new();
                        let outcome = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut stream| {
                            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                            stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n")?;
                            stream.read_to_string(&mut answer)
                        });
                        if outcome.is_err() || !answer.starts_with("HTTP/1.1 200") {
                            failures.push(format!("{outcome:?} {answer}"));
                        }
                    }
                    (sent, failures)
                })
            })
            .collect();
        for change in 1..8 {
            bench.apply(pods[change % 2], "").await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let (sent, failures) = client.join().unwrap();
            assert!(sent > 0);
            assert!(failures.is_empty(), "{kind}: {} of {sent}: {:?}", failures.len(), failures.first());
        }
        bench.gateway.quit().await;
    }
}
