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
    GatewayKind, LogRecord,
    envoy::{self, EnvoyGateway, ResponseFlag},
    fetch::{self, Search, version},
    haproxy::{self, HaproxyGateway},
    model::{
        build,
        fixtures::{SHOP, objects},
    },
    nginx::{self, NginxErrorKind, NginxGateway},
    parse_line,
};

/// The gateways that the agent configures; Traefik configures itself from a cluster's API.
const CONFIGURED: [GatewayKind; 3] = [GatewayKind::Nginx, GatewayKind::Envoy, GatewayKind::Haproxy];

/// A gateway about to run, and where it listens.
struct Bench {
    kind: GatewayKind,
    gateway: Box<dyn Gateway>,
    port: u16,
    https_port: u16,
    state: tempfile::TempDir,
}

/// A port that nothing listens on (and that nothing else was given in this process' short life).
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Bench {
    /// `None`, loudly, where no gateway is to be had.
    fn new(kind: GatewayKind) -> Option<Self> {
        let build = match Search::from_environment().and_then(|search| fetch::install(kind, &search, &|_| ())) {
            Ok(build) => build,
            Err(error) => {
                eprintln!("skipped: no {kind} on this machine: {error}");
                return None;
            }
        };
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().to_owned();
        let binary =
            Binary { path: build.binary, library_path: version::library_path_value(&build.library_path), output: Some(folder.join("log")) };
        let (port, https_port) = (free_port(), free_port());
        let gateway: Box<dyn Gateway> = match kind {
            GatewayKind::Nginx => Box::new(NginxGateway::new(
                binary,
                nginx::Layout {
                    state: folder,
                    http_port: port,
                    https_port,
                    version: version::numbers(&build.version).unwrap(),
                    root: nix::unistd::Uid::effective().is_root(),
                    open_files: 1024,
                    name_servers: Vec::new(),
                },
            )),
            GatewayKind::Envoy => {
                Box::new(EnvoyGateway::new(binary, envoy::Layout { state: folder, http_port: port, https_port, admin_port: 0 }, 1))
            }
            GatewayKind::Haproxy => Box::new(HaproxyGateway::new(
                binary,
                haproxy::Layout {
                    state: folder,
                    http_port: port,
                    https_port,
                    open_files: 1024,
                    name_servers: Vec::new(),
                    log: "stdout".to_owned(),
                },
            )),
            GatewayKind::Traefik => return None,
        };
        Some(Self { kind, gateway, port, https_port, state })
    }

    /// Makes the shop's configuration the running one, its single pod being at this port of loopback.
    async fn apply(&mut self, pod_port: u16, settings: &str) -> Result<(), ApplyError> {
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

    async fn status(&self, id: &str) -> u16 {
        self.request("GET", "shop.test", "/", id).await.0
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap()
    }

    fn log_path(&self) -> PathBuf {
        self.state.path().join("log")
    }

    /// The access log record of a request, once it is written.
    async fn access(&self, id: &str) -> LogRecord {
        for _ in 0..200 {
            if let Some(record) =
                self.log_text().lines().filter_map(|line| parse_line(self.kind, line)).find(|record| record.request_id() == Some(id))
            {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no access log line for {id} in\n{}", self.log_text());
    }

    fn errors(&self) -> Vec<nginx::NginxError> {
        let records = self.log_text();
        let records = records.lines().filter_map(|line| parse_line(self.kind, line));
        records.filter_map(|record| if let LogRecord::NginxError(error) = record { Some(error) } else { None }).collect()
    }
}

fn shop(pod_port: u16, settings: &str) -> String {
    SHOP.replace("ports: [{ name: http, port: 8080", &format!("ports: [{{ name: http, port: {pod_port}"))
        .replace("10.244.1.3], conditions: { ready: true", "127.0.0.1], conditions: { ready: true")
        .replace("10.244.0.4], conditions: { ready: true", "10.244.0.4], conditions: { ready: false")
        .replace("settings.yaml: \"\"", &format!("settings.yaml: \"{settings}\""))
}

/// A server that treats every connection the same way, until the test ends.
fn server(treat: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> u16 {
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
fn read_head(stream: &mut TcpStream) -> bool {
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

fn ok_server(body: &'static str) -> u16 {
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
fn plaintext_server() -> u16 {
    server(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.read(&mut [0; 512]);
    })
}

/// Keeps a connection open without a word.
fn hold(mut stream: &TcpStream) {
    while stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
}

fn reset(stream: TcpStream) {
    // A close with linger 0 sends RST (socket(7), SO_LINGER)
    let socket = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &socket).unwrap();
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_in_force_when_apply_returns() {
    for kind in CONFIGURED {
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
    for kind in CONFIGURED {
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
        // ingress-nginx has a route without servers, the others none
        assert_eq!(bench.status("gone").await, if kind == GatewayKind::Nginx { 503 } else { 404 });
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
    for (kind, bad) in [
        (GatewayKind::Nginx, "{snippets: {nginx: {location: 'no_such_directive on;'}}}"),
        (GatewayKind::Haproxy, "{snippets: {haproxy: {backend: 'no_such_keyword on'}}}"),
        (GatewayKind::Envoy, "{snippets: {envoy: {cluster: {no_such_field: 1}}}}"),
        (GatewayKind::Envoy, "{snippets: {envoy: {route: {no_such_field: 1}}}}"),
    ] {
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

/// What broken backends look like, at each gateway's own log.
#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_nginx() {
    let Some(mut bench) = Bench::new(GatewayKind::Nginx) else { return };
    let settings = "{connect-timeout: 200ms, read-timeout: 200ms, workers: 1, buffers: {response-header: 1k}}";
    bench.apply(free_port(), settings).await.unwrap();
    assert_eq!(bench.status("refused").await, 502);
    let LogRecord::NginxAccess(access) = bench.access("refused").await else { panic!() };
    assert_eq!(access.attempts.iter().map(|attempt| attempt.status).collect::<Vec<_>>(), [Some(502); 3]);
    assert!(access.attempts.iter().all(|attempt| attempt.connect_time.is_none()));
    let cases: [(&str, u16, u16, NginxErrorKind, Option<&str>); 6] = [
        ("silent", server(|stream| hold(&stream)), 504, NginxErrorKind::UpstreamTimedOut, Some("ETIMEDOUT")),
        (
            "closed",
            server(|mut stream| {
                let _ = read_head(&mut stream);
            }),
            502,
            NginxErrorKind::UpstreamPrematurelyClosed,
            None,
        ),
        (
            "reset",
            server(|mut stream| {
                read_head(&mut stream);
                reset(stream);
            }),
            502,
            NginxErrorKind::ReceiveFailed,
            Some("ECONNRESET"),
        ),
        (
            "garbage",
            server(|mut stream| {
                read_head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nbroken header\0\r\n\r\n");
            }),
            502,
            NginxErrorKind::UpstreamInvalidHeader,
            None,
        ),
        (
            "too-big",
            server(|mut stream| {
                read_head(&mut stream);
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "x".repeat(9000)).as_bytes());
            }),
            502,
            NginxErrorKind::UpstreamHeaderTooBig,
            None,
        ),
        ("plaintext", plaintext_server(), 502, NginxErrorKind::TlsHandshakeFailed, None),
    ];
    for (id, port, status, kind, errno) in cases {
        let tls = if id == "plaintext" { "backend-protocol: HTTPS, " } else { "" };
        bench.apply(port, &settings.replacen('{', &format!("{{{tls}"), 1)).await.unwrap();
        let known = bench.errors().len();
        assert_eq!(bench.status(id).await, status, "{id}");
        bench.access(id).await;
        let errors = &bench.errors()[known..];
        let error = errors.iter().find(|error| error.kind == kind).unwrap_or_else(|| panic!("{id}: {errors:#?}"));
        assert_eq!(error.errno.as_ref().map(|errno| errno.name.as_str()), errno, "{id}");
        assert!(error.upstream.is_some() && error.request.is_some() && error.activity.is_some(), "{error:#?}");
    }
    if std::env::var_os("GATELAB_PRINT_LOGS").is_some() {
        eprintln!("{}", bench.log_text());
    }
    bench.gateway.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_envoy() {
    let Some(mut bench) = Bench::new(GatewayKind::Envoy) else { return };
    let settings = "{connect-timeout: 200ms, read-timeout: 200ms}";
    let cases: [(&str, u16, u16, ResponseFlag, &str); 6] = [
        (
            "refused",
            free_port(),
            503,
            ResponseFlag::UpstreamConnectionFailure,
            "upstream_reset_before_response_started{remote_connection_failure",
        ),
        ("silent", server(|stream| hold(&stream)), 504, ResponseFlag::UpstreamRequestTimeout, "response_timeout"),
        (
            "closed",
            server(|mut stream| {
                let _ = read_head(&mut stream);
            }),
            503,
            ResponseFlag::UpstreamConnectionTermination,
            "upstream_reset_before_response_started{connection_termination",
        ),
        (
            "reset",
            server(|mut stream| {
                read_head(&mut stream);
                reset(stream);
            }),
            503,
            ResponseFlag::UpstreamConnectionTermination,
            "upstream_reset_before_response_started{connection_termination",
        ),
        (
            "garbage",
            server(|mut stream| {
                read_head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nbroken header\0\r\n\r\n");
                let _ = stream.read(&mut [0]);
            }),
            502,
            ResponseFlag::UpstreamProtocolError,
            "upstream_reset_before_response_started{protocol_error",
        ),
        (
            "plaintext",
            plaintext_server(),
            503,
            ResponseFlag::UpstreamConnectionFailure,
            "upstream_reset_before_response_started{remote_connection_failure",
        ),
    ];
    for (id, port, status, flag, details) in cases {
        let tls = if id == "plaintext" { "backend-protocol: HTTPS, " } else { "" };
        bench.apply(port, &settings.replacen('{', &format!("{{{tls}"), 1)).await.unwrap();
        assert_eq!(bench.status(id).await, status, "{id}");
        let LogRecord::EnvoyAccess(access) = bench.access(id).await else { panic!() };
        assert!(access.response_flags.contains(&flag), "{access:#?}");
        assert!(access.response_code_details.as_deref().unwrap_or_default().starts_with(details), "{access:#?}");
        assert_eq!(access.response_code, status);
    }
    if std::env::var_os("GATELAB_PRINT_LOGS").is_some() {
        eprintln!("{}", bench.log_text());
    }
    bench.gateway.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_haproxy() {
    let Some(mut bench) = Bench::new(GatewayKind::Haproxy) else { return };
    let settings = "{connect-timeout: 200ms, read-timeout: 200ms}";
    // Status, state, retries; a failing health check may take the server out meanwhile, which spares the tries and nothing else.
    let cases: [(&str, u16, u16, &str, Option<&str>); 6] = [
        ("refused", free_port(), 503, "SC--", None),
        ("silent", server(|stream| hold(&stream)), 504, "sH--", None),
        (
            "closed",
            server(|mut stream| {
                let _ = read_head(&mut stream);
            }),
            502,
            "SH--",
            None,
        ),
        (
            "reset",
            server(|mut stream| {
                read_head(&mut stream);
                reset(stream);
            }),
            502,
            "SH--",
            None,
        ),
        (
            "garbage",
            server(|mut stream| {
                read_head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nbroken header\0\r\n\r\n");
                let _ = stream.read(&mut [0]);
            }),
            502,
            "PH--",
            None,
        ),
        ("plaintext", plaintext_server(), 503, "SC--", Some("")),
    ];
    for (id, port, status, state, tls_error) in cases {
        let tls = if tls_error.is_some() { "backend-protocol: HTTPS, " } else { "" };
        bench.apply(port, &settings.replacen('{', &format!("{{{tls}"), 1)).await.unwrap();
        assert_eq!(bench.status(id).await, status, "{id}");
        let LogRecord::HaproxyAccess(access) = bench.access(id).await else { panic!() };
        assert_eq!((access.status, access.termination_state.as_str()), (Some(status), state), "{access:#?}");
        assert_eq!(access.response_time, None, "{access:#?}");
    }
    if std::env::var_os("GATELAB_PRINT_LOGS").is_some() {
        eprintln!("{}", bench.log_text());
    }
    bench.gateway.quit().await;
}

/// A change of endpoints costs no request, however often it comes: nginx' graceful reload and Envoy's EDS both hold.
#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_lose_no_request() {
    for kind in CONFIGURED {
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
