//! The application's own calls, and the errors that it makes of their failures.

use crate::wire::{Client, Received, backend};

async fn through(url: &str) -> (Received, fake_backends::Backend) {
    let yaml = format!("{{name: front, response: {{upstream: {{url: '{url}', connect_timeout: 300ms, timeout: 600ms}}}}}}");
    let front = backend(&yaml).await;
    let mut client = Client::to(&front).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\nX-Request-Id: abc\r\n\r\n").await;
    (client.response().await, front)
}

#[tokio::test]
async fn a_good_upstream_makes_a_good_answer_and_gets_the_request_id() {
    let stock = backend("name: stock").await;
    let (received, _front) = through(&format!("http://{}/items", stock.address().unwrap())).await;
    assert_eq!((received.status, received.json()["upstream"]["status"].as_u64()), (200, Some(200)));
    let entries = stock.journal().read(fake_backends::journal::Since::Seq(0)).entries;
    assert!(entries.iter().any(
        |entry| matches!(entry, fake_backends::journal::Entry::Request(r) if r.path == "/items" && r.request_id.as_deref() == Some("abc"))
    ));
}

#[tokio::test]
async fn failures_are_the_applications_own_gateway_errors() {
    let stock = backend("response: {latency: 1h}").await;
    let url = format!("http://{}/", stock.address().unwrap());
    let cases = [
        ("response.latency=1h", 504),
        ("server.accept=refuse", 502),
        ("server.accept=reset", 502),
        ("response.status=503", 503),
        ("response.status=500", 502),
        ("response.delivery=partial_body", 502),
    ];
    for (setting, status) in cases {
        stock
            .switch({
                let mut fresh = fake_backends::Config::default();
                fresh.server.listen = stock.config().server.listen;
                fresh.admin = stock.config().admin;
                fresh.assigned([setting.split_once('=').unwrap()]).unwrap()
            })
            .unwrap();
        // The listener follows the settings a moment later.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let (received, _front) = through(&url).await;
        assert_eq!(received.status, status, "{setting}: {}", String::from_utf8_lossy(&received.body));
        assert_eq!(received.header("x-app"), Some("front"));
        assert!(received.json()["upstream"]["error"].is_string());
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_502() {
    // A label of more than 63 octets (RFC 1035 section 2.3.4) fails within the resolver: no query leaves the machine.
    let (received, _front) = through(&format!("http://{}/", "n".repeat(64))).await;
    assert_eq!(received.status, 502);
    assert!(received.json()["upstream"]["error"].as_str().unwrap().contains("resolve"));
}
