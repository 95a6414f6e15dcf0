//! Clients that mean no good, or know no better: each gets a proper `Status`, and the server lives on.

use std::sync::Arc;
use std::time::Duration;

use embedded_cluster::api::TokenIssuer;
use http::Request;
use kube::Client;
use rand::RngExt;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::kube_crate::{client, within};
use super::lab::Lab;

const CONFIG_MAPS: &str = "/api/v1/namespaces/shop/configmaps";

/// The code and message of a refusal; `None` when it was accepted.
async fn send(client: &Client, method: &str, path: &str, media: &str, body: impl Into<Vec<u8>>) -> Option<(u16, String)> {
    let request = Request::builder().method(method).uri(path).header("content-type", media).body(body.into()).unwrap();
    match within(client.request_text(request)).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some((status.code, status.message)),
        Err(other) => panic!("{method} {path}: no Status but {other}"),
    }
}

#[tokio::test]
async fn malformed_requests_get_a_status() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let bomb: String = std::iter::once("a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned())
        .chain(('b'..'k').zip('a'..).map(|(this, last)| format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 9].join(","))))
        .collect();
    let json = "application/json";
    let cases: Vec<(u16, &str, String, &str, Vec<u8>)> = vec![
        (400, "POST", CONFIG_MAPS.into(), json, b"{".to_vec()),
        (400, "POST", CONFIG_MAPS.into(), json, b"[1]".to_vec()),
        (400, "POST", CONFIG_MAPS.into(), json, "[".repeat(100_000).into()),
        (400, "POST", CONFIG_MAPS.into(), json, br#"{"metadata":[]}"#.to_vec()),
        (400, "POST", CONFIG_MAPS.into(), json, br#"{"metadata":{"name":5}}"#.to_vec()),
        (400, "POST", CONFIG_MAPS.into(), json, br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#.to_vec()),
        (400, "POST", CONFIG_MAPS.into(), "application/yaml", bomb.into_bytes()),
        (400, "POST", CONFIG_MAPS.into(), "application/yaml", b"\xff\xfe".to_vec()),
        (400, "POST", CONFIG_MAPS.into(), "application/vnd.kubernetes.protobuf", b"k8s\0\xff\xff".to_vec()),
        (413, "POST", CONFIG_MAPS.into(), json, vec![b' '; 4 * 1024 * 1024]),
        (415, "POST", CONFIG_MAPS.into(), "text/plain", b"a".to_vec()),
        (422, "POST", CONFIG_MAPS.into(), json, br#"{"metadata":{}}"#.to_vec()),
        (404, "PATCH", format!("{CONFIG_MAPS}/none"), "application/merge-patch+json", b"{}".to_vec()),
        (400, "PATCH", format!("{CONFIG_MAPS}/none"), "application/apply-patch+yaml", b"{}".to_vec()),
        (400, "GET", format!("{CONFIG_MAPS}?labelSelector=((("), json, vec![]),
        (400, "GET", format!("{CONFIG_MAPS}?fieldSelector=a"), json, vec![]),
        (400, "GET", format!("{CONFIG_MAPS}?continue=zzz"), json, vec![]),
        (400, "GET", format!("{CONFIG_MAPS}?limit=many"), json, vec![]),
        (404, "GET", "/apis/nowhere.example/v1/things".into(), json, vec![]),
        (405, "POST", "/api/v1/pods".into(), json, b"{}".to_vec()),
        (405, "DELETE", "/api/v1/namespaces".into(), json, vec![]),
    ];
    for (expected, method, path, media, body) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let (code, message) = send(&client, method, &path, media, body).await.unwrap_or_default();
        assert_eq!(code, expected, "{method} {path} {shown}: {message}");
    }
}

#[tokio::test]
async fn random_patches_never_break_the_server() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let object = r#"{"metadata":{"name":"a"},"data":{"k":"v"}}"#;
    assert_eq!(send(&client, "POST", CONFIG_MAPS, "application/json", object).await, None);
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"metadata\"",
        "\"data\"",
        "\"$patch\"",
        "\"replace\"",
        "null",
        "1",
        "\"op\"",
        "\"path\"",
        "\"/data\"",
        "\"k\"",
    ];
    let medias = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    for round in 0..400 {
        let body: String = {
            let mut random = rand::rng();
            (0..random.random_range(1..20)).map(|_| words[random.random_range(0..words.len())]).collect()
        };
        let path = format!("{CONFIG_MAPS}/a?fieldManager=m&force=true");
        if let Some((code, message)) = send(&client, "PATCH", &path, medias[round % medias.len()], body.clone()).await {
            assert!((400..500).contains(&code), "{body}: {code} {message}");
        }
    }
    let request = Request::builder().uri(format!("{CONFIG_MAPS}/a")).body(Vec::new()).unwrap();
    assert!(within(client.request_text(request)).await.unwrap().contains("\"name\":\"a\""));
}

#[tokio::test]
async fn a_stranger_learns_nothing() {
    let lab = Lab::start().await;
    let client = super::kube_crate::token_client(&lab, "").await;
    for path in ["/api", "/apis", "/openapi/v3", "/api/v1/secrets", "/api/v1/namespaces/shop/pods/p/exec?command=sh&stdout=true"] {
        assert_eq!(send(&client, "GET", path, "application/json", "").await, Some((401, "Unauthorized".to_owned())), "{path}");
    }
}

#[tokio::test]
async fn many_idle_watches_do_not_slow_others() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let mut watches = Vec::new();
    for _ in 0..200 {
        let request = Request::builder().uri(format!("{CONFIG_MAPS}?watch=true")).body(Vec::new()).unwrap();
        watches.push(within(client.request_stream(request)).await.unwrap());
    }
    for n in 0..50 {
        let object = format!(r#"{{"metadata":{{"name":"c{n}"}},"data":{{"k":"{}"}}}}"#, "x".repeat(1000));
        assert_eq!(send(&client, "POST", CONFIG_MAPS, "application/json", object).await, None);
    }
}

fn address(lab: &Lab) -> String {
    lab.server.trim_start_matches("https://").to_owned()
}

/// A connection over which a test writes what no client library would, as a cluster administrator.
async fn raw(lab: &Lab) -> TlsStream<TcpStream> {
    let config = lab.state.certificates.client_config("mallory", &["system:masters"]).unwrap();
    connect(lab, config).await
}

/// Without a certificate of its own.
fn stranger(lab: &Lab) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = lab.state.certificates.ca_pem();
    let authority = <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(pem.as_bytes());
    roots.add(authority.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn connect(lab: &Lab, config: Arc<rustls::ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address(lab)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    within(TlsConnector::from(config).connect(name, stream)).await.unwrap()
}

/// Status line and body of the answer to a request after which the server closes.
async fn answer(mut connection: TlsStream<TcpStream>, request: &[u8]) -> (u16, String) {
    let mut answer = Vec::new();
    within(async {
        // The server may answer, and close, before it has read everything.
        let _ = connection.write_all(request).await;
        let _ = connection.read_to_end(&mut answer).await;
    })
    .await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (code, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Whether this process is for one test only; if not, the test has been run in such a process. Memory is the whole process's,
/// and other tests run at the same time.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "GATELAB_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Resident memory of this process, and so of the server in it, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// As many files as this process may have, which the usual limit of a shell is below.
fn open_files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    most
}

/// Somebody else is served.
async fn is_alive(client: &Client) {
    assert_eq!(send(client, "GET", "/api/v1/namespaces/shop", "application/json", "").await, None);
}

#[tokio::test]
async fn values_that_nest_deeply_are_refused() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    assert_eq!(send(&client, "POST", CONFIG_MAPS, "application/json", r#"{"metadata":{"name":"a"},"data":{}}"#).await, None);
    // Each copy doubles the depth; all of them together copy less than what is allowed.
    let (mut copies, mut levels) = (Vec::new(), 0);
    for _ in 0..17 {
        copies.push(json!({"op": "copy", "from": "/data", "path": "/data".to_owned() + &"/a".repeat(levels + 1)}));
        levels = 2 * levels + 1;
    }
    let copies = Value::Array(copies).to_string();
    let (code, message) =
        send(&client, "PATCH", &format!("{CONFIG_MAPS}/a"), "application/json-patch+json", copies).await.expect("refused");
    assert_eq!(code, 422, "{message}");
    let deep = 200_000;
    for (media, body) in [
        ("application/json", format!("{{\"metadata\":{{\"name\":\"b\"}},\"data\":{}{}}}", "{\"a\":".repeat(deep), "}".repeat(deep))),
        ("application/yaml", format!("metadata: {{name: b}}\ndata: {}{}", "{a: ".repeat(deep), "}".repeat(deep))),
        ("application/yaml", format!("metadata: {{name: b}}\ndata: {}{}", "[".repeat(deep), "]".repeat(deep))),
        ("application/yaml", (0..1500).map(|level| " ".repeat(level) + "a:\n").collect()),
    ] {
        let (code, message) = send(&client, "POST", CONFIG_MAPS, media, body).await.expect("refused");
        assert_eq!(code, 400, "{media}: {message}");
        is_alive(&client).await;
    }
}

#[tokio::test]
async fn bad_credentials_are_refused_alike() {
    let lab = Lab::start().await;
    let foreign = TokenIssuer::new().issue("shop", "default", "", 600, &["https://kubernetes.default.svc.cluster.local".to_owned()]);
    let tokens = ["x".to_owned(), "a.b.c".to_owned(), "..".to_owned(), "é".to_owned(), foreign, "A".repeat(30_000)];
    let schemes = ["Basic YWRtaW46YWRtaW4=", "Bearer", "Bearer ", "bearer\tx", "Digest a=b", ""];
    let headers = tokens.iter().map(|token| format!("Bearer {token}")).chain(schemes.map(str::to_owned));
    for header in headers {
        let request = format!("GET /api/v1/pods HTTP/1.1\r\nHost: lab\r\nAuthorization: {header}\r\nConnection: close\r\n\r\n");
        let (code, body) = answer(connect(&lab, stranger(&lab)).await, request.as_bytes()).await;
        let status: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{header:.40}: {error}: {code} {body}"));
        assert_eq!((code, &status["kind"], &status["reason"]), (401, &json!("Status"), &json!("Unauthorized")), "{header:.40}");
    }
    is_alive(&client(&lab).await).await;
}

#[tokio::test]
async fn half_requests_leave_nothing_behind() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let body = r#"{"metadata":{"name":"half"},"data":{"k":"v"}}"#;
    let head =
        format!("POST {CONFIG_MAPS} HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    let whole = head.clone() + body;
    for round in 0..60 {
        // Cut somewhere in the head or in the body, with and without saying so in TLS.
        let at = round * (whole.len() - 1) / 60;
        let mut connection = raw(&lab).await;
        connection.write_all(&whole.as_bytes()[..at]).await.unwrap();
        connection.flush().await.unwrap();
        if round % 2 == 0 {
            let _ = connection.shutdown().await;
        }
    }
    // A watch whose client goes away in the middle of its line.
    for _ in 0..20 {
        let mut watch = raw(&lab).await;
        let request = format!("GET {CONFIG_MAPS}?watch=true HTTP/1.1\r\nHost: lab\r\n\r\n");
        watch.write_all(request.as_bytes()).await.unwrap();
        let mut begin = [0; 12];
        within(watch.read_exact(&mut begin)).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
    }
    let half = send(&client, "GET", &format!("{CONFIG_MAPS}/half"), "application/json", "").await;
    assert_eq!(half.map(|(code, _)| code), Some(404));
    // Connections that never say anything take nobody's turn.
    open_files();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(address(&lab)).await.unwrap());
    }
    is_alive(&client).await;
    let request = "GET /api/v1/pods HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nX: ".to_owned() + &"x".repeat(2 << 20);
    let (code, _) = answer(raw(&lab).await, request.as_bytes()).await;
    assert!(matches!(code, 431 | 400 | 0), "an endless header: {code}");
    is_alive(&client).await;
}

/// Clients keep connections for their next request, some of them made ahead of the first; one that is closed under their hands fails
/// it. Strangers who never ask for anything are another matter.
#[tokio::test]
async fn idle_connections_are_kept_for_those_who_are_known_or_have_asked() {
    let lab = Lab::start().await;
    let request = b"GET /api HTTP/1.1\r\nHost: lab\r\n\r\n";
    let asked = async |connection: &mut TlsStream<TcpStream>| {
        connection.write_all(request).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"}") {
            assert_ne!(within(connection.read_buf(&mut seen)).await.unwrap(), 0, "closed: {}", String::from_utf8_lossy(&seen));
        }
        String::from_utf8_lossy(&seen[..12]).into_owned()
    };
    let (mut ahead, mut known, mut unknown) = (raw(&lab).await, raw(&lab).await, connect(&lab, stranger(&lab)).await);
    assert_eq!(asked(&mut known).await, "HTTP/1.1 200");
    assert_eq!(asked(&mut unknown).await, "HTTP/1.1 401");
    let mut silent = connect(&lab, stranger(&lab)).await;
    let closed = within(silent.read_u8()).await;
    assert!(closed.is_err(), "the silent one is answered: {closed:?}");
    assert_eq!(asked(&mut ahead).await, "HTTP/1.1 200");
    assert_eq!(asked(&mut known).await, "HTTP/1.1 200");
    assert_eq!(asked(&mut unknown).await, "HTTP/1.1 401");
}

#[tokio::test]
async fn readers_that_do_not_read_cost_little() {
    if !is_alone("hostile::readers_that_do_not_read_cost_little") {
        return;
    }
    let lab = Lab::start().await;
    let client = client(&lab).await;
    // 4 MiB for each list.
    for n in 0..100 {
        let object = format!(r#"{{"metadata":{{"name":"c{n}"}},"data":{{"k":"{}"}}}}"#, "x".repeat(40 << 10));
        assert_eq!(send(&client, "POST", CONFIG_MAPS, "application/json", object).await, None);
    }
    let before = resident();
    let mut stuck = Vec::new();
    for n in 0..200 {
        let mut connection = raw(&lab).await;
        let watch = if n % 2 == 0 { "?watch=true" } else { "" };
        let request = format!("GET {CONFIG_MAPS}{watch} HTTP/1.1\r\nHost: lab\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut begin = [0; 12];
        within(connection.read_exact(&mut begin)).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        stuck.push(connection);
    }
    // Changes that none of them takes.
    for n in 0..50 {
        let patch = format!(r#"{{"data":{{"k":"{n}"}}}}"#);
        assert_eq!(send(&client, "PATCH", &format!("{CONFIG_MAPS}/c1"), "application/merge-patch+json", patch).await, None);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Were lists kept whole for everybody there would be 800 MiB.
    let grown = resident().saturating_sub(before);
    eprintln!("200 readers that do not read: {grown} MiB more, both ends of each counted");
    assert!(grown < 500, "{grown} MiB more for 200 readers that do not read");
    is_alive(&client).await;
}

#[tokio::test]
async fn two_thousand_idle_watches_are_only_cursors() {
    if !is_alone("hostile::two_thousand_idle_watches_are_only_cursors") {
        return;
    }
    let lab = Lab::start().await;
    let admin = client(&lab).await;
    // Both ends of each are in this process.
    let per_client = usize::try_from(open_files() / 2 / 25).unwrap().min(100);
    let before = resident();
    let (mut clients, mut watches) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let client = client(&lab).await;
        for _ in 0..per_client {
            let request = Request::builder().uri(format!("{CONFIG_MAPS}?watch=true")).body(Vec::new()).unwrap();
            watches.push(within(client.request_stream(request)).await.unwrap());
        }
        clients.push(client);
    }
    let object = format!(r#"{{"metadata":{{"name":"big"}},"data":{{"k":"{}"}}}}"#, "x".repeat(500 << 10));
    assert_eq!(send(&admin, "POST", CONFIG_MAPS, "application/json", object).await, None);
    let grown = resident().saturating_sub(before);
    // The object alone, were it made into a line for each, would be 1,000 MiB.
    eprintln!("{} idle watches: {grown} MiB more, both ends of each counted", watches.len());
    assert!(grown < 600, "{grown} MiB more for {} watches", watches.len());
    is_alive(&admin).await;
}
