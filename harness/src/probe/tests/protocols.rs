//! WebSocket, gRPC and HTTP/2 against the lab's own backend.

use fake_backends::{Backend, Config};
use rstest::rstest;

use super::{http, one, run};
use crate::probe::plan::{Connection, HttpProbe, Probe, ProbeKind, Protocol, Schedule, WebSocketProbe};
use crate::probe::record::{GrpcEnd, Micros, Outcome, Phase, WebSocketUse};

async fn backend(settings: &str) -> (Backend, String) {
    let settings = format!("{{server: {{listen: '127.0.0.1:0'}}, admin: {{listen: '127.0.0.1:0'}}, {settings}}}");
    let backend = Backend::start(Config::from_yaml(&settings, "test").unwrap()).await.unwrap();
    let address = backend.address().unwrap().to_string();
    (backend, address)
}

fn probe(address: &str, change: impl FnOnce(&mut HttpProbe)) -> Probe {
    let mut probe = http(address, Connection::New, Schedule::once());
    if let ProbeKind::Http(http) = &mut probe.kind {
        change(http);
    }
    probe
}

fn websocket(address: &str, hold: u64) -> Probe {
    probe(address, |http| http.websocket = Some(WebSocketProbe { message: "hello".into(), hold: Micros(hold * 1000) }))
}

fn speaking(address: &str, protocol: Protocol) -> Probe {
    probe(address, |http| {
        http.protocol = protocol;
        if protocol == Protocol::Grpc {
            http.method = "POST".into();
        }
    })
}

#[tokio::test]
async fn a_websocket_is_used_and_closed() {
    let (_backend, address) = backend("response: {websocket: {ping_interval: 20ms}}").await;
    let record = one(websocket(&address, 200)).await;
    assert_eq!((record.outcome, record.phase, record.status), (Outcome::Answered, Phase::Done, Some(101)), "{record:?}");
    let used = record.websocket.unwrap();
    assert!(used.echo.is_some() && used.pings > 0 && used.open >= Micros(200_000), "{used:?}");
    assert_eq!(used.close_code, Some(1000));
}

#[rstest]
#[case("close_after: 50ms", 1006)]
#[case("close_after: 50ms, close_code: 1011", 1011)]
#[tokio::test]
async fn a_websocket_that_the_other_side_ends_has_failed(#[case] settings: &str, #[case] code: u16) {
    let (_backend, address) = backend(&format!("response: {{websocket: {{{settings}}}}}")).await;
    let record = one(websocket(&address, 5_000)).await;
    assert_eq!((record.outcome, record.phase, record.status), (Outcome::Closed, Phase::Upgraded, Some(101)), "{record:?}");
    assert!(record.failed());
    let used = record.websocket.unwrap();
    assert_eq!((used.close_code, used.echo.is_some()), (Some(code), true));
    assert!(used.open < Micros(5_000_000));
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let (_backend, address) = backend("response: {body: page}").await;
    let record = one(websocket(&address, 0)).await;
    assert_eq!((record.outcome, record.status, record.body.as_str()), (Outcome::Answered, Some(200), "page"));
    assert_eq!(record.websocket, Some(WebSocketUse::default()));
    assert!(record.failed(), "200 is no success for a handshake");
}

#[tokio::test]
async fn a_grpc_call_tells_its_status() {
    let (backend, address) = backend("response: {grpc: {}}").await;
    let record = one(speaking(&address, Protocol::Grpc)).await;
    assert_eq!((record.status, record.body.as_str()), (Some(200), "\0\0\0\0\0"), "{record:?}");
    assert_eq!(record.grpc, Some(GrpcEnd { status: Some(0), message: None }));
    assert!(!record.failed());

    backend.set([("response.grpc", "{status: 14, message: later}")]).unwrap();
    let record = one(speaking(&address, Protocol::Grpc)).await;
    assert_eq!((record.status, record.grpc.clone()), (Some(200), Some(GrpcEnd { status: Some(14), message: Some("later".into()) })));
    assert!(record.failed());

    backend.set([("response.grpc", "null")]).unwrap();
    let record = one(speaking(&address, Protocol::Grpc)).await;
    assert_eq!((record.status, record.grpc.clone()), (Some(200), Some(GrpcEnd::default())));
    assert!(record.failed(), "an answer that is none of gRPC is no success");
}

#[tokio::test]
async fn http2_is_spoken_on_one_connection_and_not_understood_by_http1_servers() {
    let (backend, address) = backend("response: {body: page}").await;
    let mut probe = speaking(&address, Protocol::Http2);
    probe.schedule = Schedule::Sequence { times: 3, gap: Micros::ZERO, concurrency: 1 };
    if let ProbeKind::Http(http) = &mut probe.kind {
        http.connection = Connection::Reuse;
    }
    let (records, summary) = run(probe).await;
    assert!(records.iter().all(|record| record.status == Some(200) && record.body == "page"), "{records:?}");
    assert_eq!(summary.connections, 1);

    backend.set([("server.protocol", "http1")]).unwrap();
    let record = one(speaking(&address, Protocol::Http2)).await;
    // Malformed, or closed where the close was seen before the server's words were.
    assert_ne!(record.outcome, Outcome::Answered, "{record:?}");
    backend.set([("server.protocol", "h2")]).unwrap();
    let record = one(speaking(&address, Protocol::Http1)).await;
    assert_ne!(record.outcome, Outcome::Answered, "{record:?}");
}
