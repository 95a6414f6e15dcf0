//! `server.accept`, `close_on_request`, `keepalive_requests`, `max_connections`.

use std::{io::ErrorKind, time::Duration};

use rstest::rstest;
use tokio::{net::TcpStream, time::timeout};

use crate::wire::{Client, End, RESET, backend, eventually};

async fn is_refused(address: std::net::SocketAddr) -> bool {
    matches!(TcpStream::connect(address).await, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn a_healthy_backend_says_who_it_is() {
    let backend = backend("name: shop").await;
    let mut client = Client::to(&backend).await;
    client.send("GET /a?b=c HTTP/1.1\r\nHost: test\r\nX-Request-Id: abc-1\r\n\r\n").await;
    let received = client.response().await;
    assert_eq!(received.status, 200);
    assert_eq!(received.header("x-app"), Some("shop"));
    assert_eq!(received.header("x-request-id"), Some("abc-1"));
    let json = received.json();
    assert_eq!((json["app"].as_str(), json["path"].as_str(), json["request_id"].as_str()), (Some("shop"), Some("/a"), Some("abc-1")));
    assert_eq!(json["served_by"].as_str(), received.header("x-served-by"));
    // And stays open.
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn refusing_closes_the_listener_and_leaves_open_connections() {
    let backend = backend("").await;
    let address = backend.address().unwrap();
    let mut open = Client::to(&backend).await;
    open.get("/").await;
    backend.set([("server.accept", "refuse")]).unwrap();
    timeout(crate::wire::PATIENCE, async { while !is_refused(address).await {} }).await.unwrap();
    assert_eq!(open.get("/").await.status, 200);
    backend.set([("server.accept", "serve")]).unwrap();
    timeout(crate::wire::PATIENCE, async { while is_refused(address).await {} }).await.unwrap();
    assert_eq!(Client::connect(address).await.get("/").await.status, 200);
}

#[tokio::test]
async fn refusing_from_the_start_is_no_listener() {
    let backend = backend("server: {accept: refuse}").await;
    assert!(is_refused(backend.address().unwrap()).await);
}

#[tokio::test]
async fn a_full_backlog_drops_the_very_first_connect() {
    let backend = backend("server: {accept: never}").await;
    let address = backend.address().unwrap();
    // A loopback handshake takes microseconds.
    assert!(timeout(Duration::from_millis(700), TcpStream::connect(address)).await.is_err(), "the handshake was completed");
    backend.set([("server.accept", "serve")]).unwrap();
    eventually("serving again", || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)).is_ok()).await;
    assert_eq!(Client::connect(address).await.get("/").await.status, 200);
}

#[tokio::test]
async fn silence_is_an_open_connection_without_a_byte() {
    let backend = backend("server: {accept: silent}").await;
    let mut client = Client::to(&backend).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(client.is_silent_for(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn a_reset_on_accept_is_econnreset() {
    let backend = backend("server: {accept: reset}").await;
    let mut client = Client::to(&backend).await;
    assert_eq!(client.end().await, RESET);
}

#[rstest]
#[case("fin", End::Fin)]
#[case("reset", RESET)]
#[tokio::test]
async fn the_nth_request_closes_every_connection(#[case] close: &str, #[case] end: End) {
    let backend = backend(&format!("server: {{close_on_request: 3, close_on_request_with: {close}}}")).await;
    for _ in 0..2 {
        let mut client = Client::to(&backend).await;
        client.get("/").await;
        client.get("/").await;
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody").await;
        let (bytes, ended) = client.until_end().await;
        assert_eq!((bytes, &ended), (Vec::new(), &end));
    }
}

#[tokio::test]
async fn an_announced_limit_says_connection_close_on_the_last_response() {
    let backend = backend("server: {keepalive_requests: 2}").await;
    let mut client = Client::to(&backend).await;
    assert_eq!(client.get("/").await.header("connection"), None);
    assert_eq!(client.get("/").await.header("connection"), Some("close"));
    assert_eq!(client.end().await, End::Fin);
}

#[tokio::test]
async fn an_unannounced_limit_closes_after_a_response_like_any_other() {
    let backend = backend("server: {keepalive_requests: 2, keepalive_announce_close: false}").await;
    let mut client = Client::to(&backend).await;
    assert_eq!(client.get("/").await.header("connection"), None);
    let last = client.get("/").await;
    assert_eq!((last.status, last.header("connection")), (200, None));
    assert_eq!(client.end().await, End::Fin);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let backend = backend("server: {max_connections: 1}").await;
    let mut first = Client::to(&backend).await;
    first.get("/").await;
    let mut second = Client::to(&backend).await;
    second.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(second.is_silent_for(Duration::from_millis(300)).await);
    drop(first);
    assert_eq!(second.response().await.status, 200);
}

#[tokio::test]
async fn an_announced_limit_is_a_goaway_on_http2() {
    let backend = backend("server: {keepalive_requests: 2}").await;
    let stream = TcpStream::connect(backend.address().unwrap()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    for _ in 0..2 {
        let (response, _) = sender.send_request(http::Request::get("http://test/").body(()).unwrap(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    }
    timeout(crate::wire::PATIENCE, ended).await.unwrap().unwrap().unwrap();
}
