//! Health endpoints, true and untrue, on both ports; start-up.

use crate::wire::{Client, backend, eventually};

#[tokio::test]
async fn readiness_tells_the_truth_until_it_is_told_not_to() {
    let backend = backend("startup: {ready_after: 1h}").await;
    let mut client = Client::to(&backend).await;
    assert_eq!(client.get("/healthz").await.status, 200);
    assert_eq!(client.get("/readyz").await.status, 503);
    let starting = client.get("/").await;
    assert_eq!((starting.status, starting.json()["error"].as_str()), (503, Some("starting")));
    // Ready in name only.
    backend.set([("health.readiness", "pass"), ("health.liveness", "fail")]).unwrap();
    assert_eq!(client.get("/readyz").await.status, 200);
    assert_eq!(client.get("/healthz").await.status, 503);
    assert_eq!(client.get("/").await.status, 503);
    backend.set([("health.readiness", "auto"), ("startup.ready_after", "null")]).unwrap();
    assert_eq!(client.get("/readyz").await.status, 200);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn the_health_port_answers_while_the_main_port_refuses() {
    let backend = backend("server: {accept: refuse, health_listen: '127.0.0.1:0'}").await;
    let mut client = Client::connect(backend.health_address().unwrap()).await;
    assert_eq!(client.get("/healthz").await.status, 200);
    assert_eq!(client.get("/readyz").await.status, 503);
    assert_eq!(client.get("/").await.status, 404);
    backend.set([("server.accept", "serve")]).unwrap();
    eventually("listening", || std::net::TcpStream::connect(backend.address().unwrap()).is_ok()).await;
    assert_eq!(client.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_late_listener_refuses_first_and_serves_then() {
    let backend = backend("{startup: {listen_after: 300ms}, server: {health_listen: '127.0.0.1:0'}}").await;
    assert_eq!(backend.address(), None);
    let mut health = Client::connect(backend.health_address().unwrap()).await;
    assert_eq!(health.get("/readyz").await.status, 503);
    eventually("listening", || backend.address().is_some()).await;
    assert_eq!(Client::to(&backend).await.get("/").await.status, 200);
    assert_eq!(health.get("/readyz").await.status, 200);
}
