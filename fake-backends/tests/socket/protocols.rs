//! WebSocket, gRPC and the limits of HTTP/2.

use bytes::Bytes;
use fake_backends::{
    Backend,
    journal::{Entry, RequestEnd, RequestEntry, Since},
};
use futures::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::wire::{Client, PATIENCE, backend, eventually};

const HANDSHAKE: &str = "GET /feed HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn request(backend: &Backend) -> Option<RequestEntry> {
    let entries = backend.journal().read(Since::Seq(0)).entries;
    entries.into_iter().find_map(|entry| if let Entry::Request(request) = entry { Some(request) } else { None })
}

fn ended(backend: &Backend) -> Option<RequestEnd> {
    request(backend).and_then(|request| request.ended)
}

async fn upgraded(backend: &Backend) -> WebSocketStream<TcpStream> {
    let mut client = Client::to(backend).await;
    client.send(HANDSHAKE).await;
    let received = client.response().await;
    assert_eq!((received.status, received.header("x-app")), (101, Some("app")), "{}", received.head);
    assert_eq!(received.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    WebSocketStream::from_raw_socket(client.into_inner(), Role::Client, None).await
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
    timeout(PATIENCE, socket.next()).await.expect("nothing came")
}

#[tokio::test]
async fn a_websocket_echoes_until_it_is_closed() {
    let backend = backend("routes: [{path: /feed, response: {websocket: {}}}]").await;
    let mut socket = upgraded(&backend).await;
    assert_eq!(ended(&backend), None, "the request lasts as long as the connection");
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text("hello"));
    socket.close(None).await.unwrap();
    while next(&mut socket).await.is_some() {}
    eventually("ended", || ended(&backend) == Some(RequestEnd::Completed)).await;
    let request = request(&backend).unwrap();
    assert_eq!((request.status, request.bytes_out), (Some(101), 5));
}

#[tokio::test]
async fn a_websocket_whose_client_just_goes_is_recorded_so() {
    let backend = backend("response: {websocket: {}}").await;
    drop(upgraded(&backend).await);
    eventually("ended", || ended(&backend) == Some(RequestEnd::ClientClosed)).await;
}

#[tokio::test]
async fn a_websocket_is_pinged_and_closed_as_told() {
    let backend = backend("response: {websocket: {ping_interval: 20ms, close_after: 200ms, close_code: 1011}}").await;
    let mut socket = upgraded(&backend).await;
    assert!(matches!(next(&mut socket).await, Some(Ok(Message::Ping(_)))));
    let close = loop {
        match next(&mut socket).await {
            Some(Ok(Message::Close(frame))) => break frame,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(close.map(|frame| u16::from(frame.code)), Some(1011));

    backend.set([("response.websocket", "{close_after: 20ms}")]).unwrap();
    let mut socket = upgraded(&backend).await;
    assert!(matches!(next(&mut socket).await, Some(Err(_))), "no close frame was to come");
}

#[tokio::test]
async fn an_ending_process_says_goodbye_to_its_websockets() {
    let backend = backend("{server: {shutdown: finish}, response: {websocket: {}}}").await;
    let mut socket = upgraded(&backend).await;
    backend.terminate();
    let Some(Ok(Message::Close(Some(frame)))) = next(&mut socket).await else { panic!("no close frame") };
    assert_eq!(u16::from(frame.code), 1001);
    while next(&mut socket).await.is_some() {}
    assert_eq!(timeout(PATIENCE, backend.stopped()).await.unwrap().code, 0);
}

#[tokio::test]
async fn a_handshake_is_ignored_refused_or_demanded() {
    let backend = backend("response: {body: page}").await;
    let ask = |head: &'static str| {
        let backend = &backend;
        async move {
            let mut client = Client::to(backend).await;
            client.send(head).await;
            client.response().await
        }
    };
    // Knows no upgrade.
    let received = ask(HANDSHAKE).await;
    assert_eq!((received.status, received.body.as_slice()), (200, b"page".as_slice()));
    // Demands one.
    backend.set([("response.websocket", "{required: 426}")]).unwrap();
    let received = ask("GET /feed HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!((received.status, received.header("upgrade")), (426, Some("websocket")));
    // Speaks another version.
    let old = "GET /feed HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\r\n";
    let received = ask(old).await;
    assert_eq!((received.status, received.header("sec-websocket-version")), (426, Some("13")));
    // Does both.
    backend.set([("response.websocket", "{}")]).unwrap();
    assert_eq!(ask("GET /feed HTTP/1.1\r\nHost: test\r\n\r\n").await.status, 200);
}

async fn h2(backend: &Backend) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(backend.address().unwrap()).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    timeout(PATIENCE, sender.ready()).await.unwrap().unwrap()
}

/// grpc-status in headers, message, grpc-status in trailers.
async fn call(backend: &Backend, path: &str, message: &'static [u8]) -> (Option<String>, Vec<u8>, Option<String>) {
    let request = http::Request::post(format!("http://test{path}")).header("content-type", "application/grpc").body(()).unwrap();
    let (response, mut body) = h2(backend).await.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(message), true).unwrap();
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    let status = |headers: &http::HeaderMap| headers.get("grpc-status").map(|value| value.to_str().unwrap().to_owned());
    let early = status(response.headers());
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        bytes.extend_from_slice(&data.unwrap());
    }
    let late = body.trailers().await.unwrap().as_ref().and_then(status);
    (early, bytes, late)
}

#[tokio::test]
async fn a_grpc_call_ends_with_its_status() {
    let backend = backend("{server: {protocol: h2}, response: {grpc: {}}}").await;
    assert_eq!(
        call(&backend, "/shop.Stock/Get", b"\0\0\0\0\x02\x08\x07").await,
        (None, b"\0\0\0\0\x02\x08\x07".to_vec(), Some("0".into()))
    );
    assert_eq!(call(&backend, "/grpc.health.v1.Health/Check", b"\0\0\0\0\0").await.1, b"\0\0\0\0\x02\x08\x01");
    backend.set([("startup.ready_after", "null"), ("response.grpc", "{status: 5, message: no such item}")]).unwrap();
    assert_eq!(call(&backend, "/shop.Stock/Get", b"\0\0\0\0\0").await, (Some("5".into()), Vec::new(), None));
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let backend = backend("{server: {protocol: h2, h2_max_concurrent_streams: 1}, response: {latency: 300ms}}").await;
    let mut sender = h2(&backend).await;
    // Sent before the server's SETTINGS are read, as a client may: it does not know of a limit yet (RFC 9113 section 5.1.2).
    let mut send = || sender.send_request(http::Request::get("http://test/").body(()).unwrap(), true).unwrap().0;
    let (first, second) = (send(), send());
    let (first, second) = timeout(PATIENCE, async { tokio::join!(first, second) }).await.unwrap();
    assert_eq!(first.unwrap().status(), 200);
    assert_eq!(second.unwrap_err().reason(), Some(h2::Reason::REFUSED_STREAM));
}

#[tokio::test]
async fn an_h2_server_does_not_understand_http1() {
    let backend = backend("server: {protocol: h2}").await;
    let mut client = Client::to(&backend).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let (bytes, _) = client.until_end().await;
    assert!(!bytes.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(request(&backend), None);
}
