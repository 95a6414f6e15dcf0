//! What the journal says about connections that ended in different ways.

use std::time::Duration;

use fake_backends::{
    Backend,
    journal::{ConnectionEnd, ConnectionEntry, Entry, RequestEnd, RequestEntry, Since},
};

use crate::wire::{Client, backend, eventually};

fn requests(backend: &Backend) -> Vec<RequestEntry> {
    let entries = backend.journal().read(Since::Seq(0)).entries;
    entries.into_iter().filter_map(|entry| if let Entry::Request(request) = entry { Some(request) } else { None }).collect()
}

fn connections(backend: &Backend) -> Vec<ConnectionEntry> {
    let entries = backend.journal().read(Since::Seq(0)).entries;
    entries.into_iter().filter_map(|entry| if let Entry::Connection(connection) = entry { Some(connection) } else { None }).collect()
}

#[tokio::test]
async fn requests_of_one_connection_are_numbered_and_counted() {
    let backend = backend("response: {body: hello}").await;
    let mut client = Client::to(&backend).await;
    let peer = client.tcp().local_addr().unwrap();
    client.get("/a").await;
    client.send("POST /b?c=d HTTP/1.1\r\nHost: shop.test\r\nX-Request-Id: r-2\r\nContent-Length: 4\r\n\r\nbody").await;
    client.response().await;
    client.get("/healthz").await;
    drop(client);
    eventually("closed", || connections(&backend).iter().any(|c| c.ended.is_some())).await;
    let connection = connections(&backend).remove(0);
    assert_eq!((connection.peer, connection.requests, connection.health_requests), (peer, 3, 1));
    assert_eq!(connection.ended, Some(ConnectionEnd::ClientClosed));
    assert!(connection.bytes_in > 100 && connection.bytes_out > 100 && connection.duration.is_some());
    let requests = requests(&backend);
    assert_eq!(requests.iter().map(|request| request.number).collect::<Vec<_>>(), [1, 2, 3]);
    let second = &requests[1];
    assert_eq!((second.request_id.as_deref(), second.path.as_str(), second.host.as_deref()), (Some("r-2"), "/b?c=d", Some("shop.test")));
    assert_eq!((second.status, second.bytes_in, second.bytes_out, second.ended), (Some(200), 4, 5, Some(RequestEnd::Completed)));
    assert!(!second.health && requests[2].health);
}

/// A gateway that gives up: the application works on to the end, and the journal tells both times.
#[tokio::test]
async fn an_answer_that_comes_too_late_is_recorded_with_the_clients_departure() {
    let backend = backend("response: {latency: 600ms}").await;
    let mut client = Client::to(&backend).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(client.is_silent_for(Duration::from_millis(150)).await);
    assert_eq!(requests(&backend)[0].ended, None, "in flight");
    drop(client);
    eventually("ended", || requests(&backend)[0].ended.is_some()).await;
    let request = requests(&backend).remove(0);
    assert_eq!((request.ended, request.status), (Some(RequestEnd::ClientClosed), None));
    let (gone, ready) = (request.client_gone.unwrap(), request.answer_ready.unwrap());
    assert!(gone < ready && ready >= Duration::from_millis(600), "{gone:?} {ready:?}");
}

#[tokio::test]
async fn a_client_that_resets_is_told_from_one_that_closes() {
    let backend = backend("response: {body_size: 50MiB}").await;
    let mut client = Client::to(&backend).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    eventually("sending", || requests(&backend).len() == 1).await;
    socket2::SockRef::from(client.tcp()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    eventually("ended", || connections(&backend)[0].ended.is_some()).await;
    assert_eq!(connections(&backend)[0].ended, Some(ConnectionEnd::ClientReset));
    let request = requests(&backend).remove(0);
    assert_eq!(request.ended, Some(RequestEnd::ClientReset));
    assert!(request.bytes_out < 50 << 20);
}

#[tokio::test]
async fn bytes_that_are_no_http_are_a_protocol_error() {
    let backend = backend("").await;
    let mut client = Client::to(&backend).await;
    client.send("\x16\x03\x01 this is no request\r\n\r\n").await;
    client.until_end().await;
    eventually("ended", || connections(&backend)[0].ended.is_some()).await;
    let connection = connections(&backend).remove(0);
    assert_eq!(connection.ended, Some(ConnectionEnd::ProtocolError));
    assert!(connection.error.is_some());
}

#[tokio::test]
async fn a_silent_server_still_counts_what_it_hears() {
    let backend = backend("server: {accept: silent}").await;
    let mut client = Client::to(&backend).await;
    client.send("twelve bytes").await;
    assert!(client.is_silent_for(Duration::from_millis(50)).await);
    drop(client);
    eventually("ended", || connections(&backend)[0].ended.is_some()).await;
    let connection = connections(&backend).remove(0);
    assert_eq!((connection.bytes_in, connection.bytes_out, connection.ended), (12, 0, Some(ConnectionEnd::ClientClosed)));
}
