//! Well-formed answers: status, headers, sizes, latency, pauses, HTTP/2.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::wire::{Client, End, PATIENCE, backend};

#[tokio::test]
async fn status_headers_and_size_are_as_told() {
    let backend = backend("response: {status: 203, headers: {X-Color: green}, body_size: 100KiB, header_size: 9KiB}").await;
    let mut client = Client::to(&backend).await;
    let received = client.get("/").await;
    assert_eq!((received.status, received.body.len()), (203, 100 * 1024));
    assert_eq!(received.header("x-color"), Some("green"));
    assert_eq!(received.header("x-session-state").unwrap().len(), 9 * 1024);
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    let (bytes, end) = client.until_end().await;
    assert!(bytes.ends_with(b"\r\n\r\n"));
    assert_eq!(end, End::Fin);
}

#[tokio::test]
async fn a_slow_route_leaves_the_others_fast() {
    let backend = backend("routes: [{path: /slow, response: {latency: 500ms}}, {path: /slow/not, response: {latency: 0s}}]").await;
    let mut client = Client::to(&backend).await;
    let begin = Instant::now();
    client.get("/slow").await;
    let slow = begin.elapsed();
    client.get("/").await;
    client.get("/slow/not").await;
    let fast = begin.elapsed() - slow;
    assert!(slow >= Duration::from_millis(500) && fast < slow, "{slow:?} {fast:?}");
}

#[tokio::test]
async fn a_body_that_stalls_sends_so_much_and_no_more() {
    let backend = backend("response: {body_size: 1000, body_pause: {after: 300}}").await;
    let mut stream = TcpStream::connect(backend.address().unwrap()).await.unwrap();
    stream.try_write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let complete = timeout(Duration::from_millis(500), stream.read_to_end(&mut bytes)).await;
    assert!(complete.is_err(), "the connection was closed");
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("content-length: 1000"), "{head}");
    assert_eq!(body.len(), 300);
}

#[tokio::test]
async fn a_paused_body_is_whole_in_the_end() {
    let backend = backend("response: {body: hello world, body_pause: {after: 5B, duration: 300ms}}").await;
    let mut client = Client::to(&backend).await;
    let begin = Instant::now();
    assert_eq!(client.get("/").await.body, b"hello world");
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn h2c_with_prior_knowledge_is_answered_and_limited() {
    let backend = backend("server: {h2_max_concurrent_streams: 7}").await;
    let stream = TcpStream::connect(backend.address().unwrap()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://test/").body(Empty::<Bytes>::new()).unwrap();
    let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (http::Version::HTTP_2, 200));
    assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert_eq!(max_streams(&backend).await, 7);
}

/// Reads SETTINGS_MAX_CONCURRENT_STREAMS from the server's first frame.
async fn max_streams(backend: &fake_backends::Backend) -> usize {
    let stream = TcpStream::connect(backend.address().unwrap()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(async move {
        tokio::pin!(connection);
        let _ = (&mut connection).await;
    });
    // The limit is known once a response has come.
    let (response, _) = sender.send_request(http::Request::get("http://test/").body(()).unwrap(), true).unwrap();
    response.await.unwrap();
    let streams = sender.current_max_send_streams();
    driver.abort();
    streams
}

#[tokio::test]
async fn an_http1_server_does_not_speak_h2_and_the_reverse() {
    let one = backend("server: {protocol: http1}").await;
    let mut client = Client::to(&one).await;
    // The connection preface (RFC 9113 section 3.4) and an empty SETTINGS frame.
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let (bytes, _) = client.until_end().await;
    assert!(bytes.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&bytes));

    let two = backend("server: {protocol: h2}").await;
    let mut client = Client::to(&two).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let (bytes, _) = client.until_end().await;
    assert!(!bytes.starts_with(b"HTTP/1.1"), "{}", String::from_utf8_lossy(&bytes));
}
