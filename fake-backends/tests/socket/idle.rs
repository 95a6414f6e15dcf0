//! Idle timeouts: measured from the end of the last response, ended by FIN or RST, and lost honestly by late requests.

use std::time::{Duration, Instant};

use fake_backends::journal::{ConnectionEnd, Entry, Since};
use rstest::rstest;

use crate::wire::{Client, End, RESET, backend, eventually};

#[rstest]
#[case("fin", End::Fin, ConnectionEnd::IdleClosed)]
#[case("reset", RESET, ConnectionEnd::IdleReset)]
#[tokio::test]
async fn an_idle_connection_is_closed_after_the_timeout(#[case] close: &str, #[case] end: End, #[case] journaled: ConnectionEnd) {
    let backend = backend(&format!("server: {{keepalive_idle_timeout: 300ms, keepalive_idle_close: {close}}}")).await;
    let mut client = Client::to(&backend).await;
    client.get("/").await;
    let idle = Instant::now();
    assert_eq!(client.end().await, end);
    assert!(idle.elapsed() > Duration::from_millis(250), "closed after {:?}", idle.elapsed());
    let ended = || {
        backend
            .journal()
            .read(Since::Seq(0))
            .entries
            .iter()
            .any(|entry| matches!(entry, Entry::Connection(c) if c.ended == Some(journaled)))
    };
    eventually("journaled", ended).await;
}

#[tokio::test]
async fn the_timer_starts_at_the_end_of_the_response_and_each_request_stops_it() {
    let backend = backend("{server: {keepalive_idle_timeout: 400ms}, response: {latency: 600ms}}").await;
    let mut client = Client::to(&backend).await;
    // Longer in flight than the idle timeout, three times over.
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(client.end().await, End::Fin);
}

#[tokio::test]
async fn a_connection_that_never_asked_is_not_kept_alive_traffic() {
    let backend = backend("server: {keepalive_idle_timeout: 50ms}").await;
    let mut client = Client::to(&backend).await;
    assert!(client.is_silent_for(Duration::from_millis(400)).await);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_first_request_that_does_not_come_has_a_timeout_of_its_own() {
    let backend = backend("server: {first_request_timeout: 100ms}").await;
    let mut idle = Client::to(&backend).await;
    let mut half = Client::to(&backend).await;
    half.send("GET / HT").await;
    assert_eq!(idle.end().await, End::Fin);
    assert_eq!(half.end().await, End::Fin);
}

#[tokio::test]
async fn half_a_request_stops_the_idle_timer() {
    let backend = backend("server: {keepalive_idle_timeout: 300ms}").await;
    let mut client = Client::to(&backend).await;
    client.get("/").await;
    client.send("GET / HTTP/1.1\r\n").await;
    assert!(client.is_silent_for(Duration::from_millis(700)).await);
    client.send("Host: test\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_shorter_timeout_reaches_connections_that_are_idle_already() {
    let backend = backend("server: {keepalive_idle_timeout: 1h}").await;
    let mut client = Client::to(&backend).await;
    client.get("/").await;
    assert!(client.is_silent_for(Duration::from_millis(100)).await);
    backend.set([("server.keepalive_idle_timeout", "1ms")]).unwrap();
    assert_eq!(client.end().await, End::Fin);
}

/// HTTP/2 has a farewell, so an idle close loses no request: GOAWAY with NO_ERROR (RFC 9113 section 6.8), then FIN.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_http2_connection_ends_with_goaway() {
    let backend = backend("server: {keepalive_idle_timeout: 200ms}").await;
    let stream = tokio::net::TcpStream::connect(backend.address().unwrap()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let (response, _) = sender.send_request(http::Request::get("http://test/").body(()).unwrap(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    // A connection cut without GOAWAY would be an I/O error here.
    tokio::time::timeout(crate::wire::PATIENCE, ended).await.unwrap().unwrap().unwrap();
    let journaled = || {
        backend
            .journal()
            .read(Since::Seq(0))
            .entries
            .iter()
            .any(|entry| matches!(entry, Entry::Connection(c) if c.ended == Some(ConnectionEnd::IdleClosed)))
    };
    eventually("journaled", journaled).await;
    assert!(sender.ready().await.is_err());
}

/// The race itself: the request is in the backend's receive queue when the timer fires. The runtime is kept from running meanwhile, as a
/// busy event loop would be, so that both are due at once; the timer wins and the kernel resets the connection over the unread bytes.
#[tokio::test]
async fn a_request_that_arrives_with_the_close_is_reset_and_never_seen() {
    let backend = backend("server: {keepalive_idle_timeout: 100ms}").await;
    let mut client = Client::to(&backend).await;
    client.get("/").await;
    let stalled = Instant::now();
    let request = b"GET /late HTTP/1.1\r\nHost: test\r\n\r\n";
    assert_eq!(client.tcp().try_write(request).unwrap(), request.len());
    while stalled.elapsed() < Duration::from_millis(250) {
        std::hint::spin_loop();
    }
    assert_eq!(client.end().await, RESET);
    let entries = backend.journal().read(Since::Seq(0)).entries;
    assert!(!entries.iter().any(|entry| matches!(entry, Entry::Request(request) if request.path == "/late")), "{entries:?}");
    let unread = entries.iter().find_map(|entry| if let Entry::Connection(c) = entry { Some(c.unread_bytes) } else { None });
    assert_eq!(unread, Some(request.len() as u64));
}
