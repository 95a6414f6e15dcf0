//! The admin port.

use serde_json::{Value, json};

use crate::wire::{Client, Received, backend};

async fn ask(backend: &fake_backends::Backend, method: &str, path: &str, body: &str) -> Received {
    let mut client = Client::connect(backend.admin_address()).await;
    client.send(&format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    client.response().await
}

#[tokio::test]
async fn some_knobs_change_and_the_rest_stays() {
    let backend = backend("{name: shop, response: {status: 201, headers: {X-A: b}}}").await;
    assert_eq!(ask(&backend, "PATCH", "/config", r#"{"response": {"latency": "5ms"}}"#).await.status, 200);
    assert_eq!(ask(&backend, "POST", "/set", r#"{"response.status": "418"}"#).await.status, 200);
    let config = ask(&backend, "GET", "/config", "").await.json();
    assert_eq!(config["response"], json!({"status": 418, "headers": {"X-A": "b"}, "latency": "5ms"}));
    assert_eq!(Client::to(&backend).await.get("/").await.status, 418);
}

#[tokio::test]
async fn the_settings_that_are_read_can_be_written_back() {
    let backend = backend("{name: shop, tls: {}, routes: [{path: /x, response: {body_pause: {after: 1KiB, duration: 90s}}}]}").await;
    let before = backend.config();
    let config = ask(&backend, "GET", "/config", "").await;
    assert_eq!(ask(&backend, "PUT", "/config", std::str::from_utf8(&config.body).unwrap()).await.status, 200);
    assert_eq!(backend.config(), before);
}

#[tokio::test]
async fn wrong_changes_change_nothing_and_say_why() {
    let backend = backend("").await;
    let before = backend.config();
    for (method, path, body, status, reason) in [
        ("PATCH", "/config", r#"{"server": {"akcept": "refuse"}}"#, 422, "akcept"),
        ("POST", "/set", r#"{"response.status": "9"}"#, 422, "response.status"),
        ("POST", "/set", r#"{"admin.listen": "127.0.0.1:1"}"#, 409, "restart"),
        ("DELETE", "/config", "", 405, "DELETE"),
        ("GET", "/journal?since=soon", "", 400, "soon"),
        ("GET", "/ca.pem", "", 404, "TLS"),
    ] {
        let received = ask(&backend, method, path, body).await;
        let text = String::from_utf8_lossy(&received.body).into_owned();
        assert_eq!((received.status, text.contains(reason)), (status, true), "{method} {path}: {text}");
    }
    assert_eq!(backend.config(), before);
}

#[tokio::test]
async fn the_journal_is_paged_and_streamed() {
    let backend = backend("").await;
    let mut client = Client::to(&backend).await;
    client.get("/one").await;
    let page = ask(&backend, "GET", "/journal", "").await.json();
    let paths =
        |page: &Value| page["entries"].as_array().unwrap().iter().filter_map(|e| e["path"].as_str().map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(paths(&page), ["/one"]);
    let next = page["next"].as_u64().unwrap();

    let mut stream = Client::connect(backend.admin_address()).await;
    stream.send(&format!("GET /journal/stream?since={next} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")).await;
    stream.response().await;
    client.get("/two").await;
    let page = ask(&backend, "GET", &format!("/journal?since={next}"), "").await.json();
    assert_eq!(paths(&page), ["/two"]);
    drop(backend);
    let (streamed, _) = stream.until_end().await;
    let streamed = String::from_utf8(streamed).unwrap();
    assert!(streamed.contains("\"path\":\"/two\"") && !streamed.contains("/one"), "{streamed}");
}

#[tokio::test]
async fn metrics_and_the_authority_are_served() {
    let backend = backend("tls: {}").await;
    let metrics = ask(&backend, "GET", "/metrics", "").await;
    assert!(String::from_utf8(metrics.body).unwrap().contains("\nbackend_connections_open 0\n"));
    let pem = ask(&backend, "GET", "/ca.pem", "").await;
    assert!(pem.body.starts_with(b"-----BEGIN CERTIFICATE-----"));
}
