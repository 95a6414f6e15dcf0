//! `response.delivery`: the bytes on the wire, and the end of the connection.

use fake_backends::journal::{Entry, RequestEnd, Since};
use rstest::rstest;

use crate::wire::{Client, End, RESET, backend};

const BODY: &str = "0123456789";

async fn received(delivery: &str, close: &str) -> (String, End) {
    let backend = backend(&format!("response: {{body: '{BODY}', delivery: {delivery}, delivery_close: {close}}}")).await;
    let mut client = Client::to(&backend).await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc").await;
    let (bytes, end) = client.until_end().await;
    let wanted = if close == "fin" { RequestEnd::ServerClosed } else { RequestEnd::ServerReset };
    let entries = backend.journal().read(Since::Seq(0)).entries;
    assert!(
        entries.iter().any(|entry| matches!(entry, Entry::Request(request) if request.ended == Some(wanted) && request.bytes_in == 3)),
        "{entries:?}"
    );
    (String::from_utf8_lossy(&bytes).into_owned(), end)
}

#[rstest]
#[case("fin", End::Fin)]
#[case("reset", RESET)]
#[tokio::test]
async fn nothing(#[case] close: &str, #[case] end: End) {
    assert_eq!(received("nothing", close).await, (String::new(), end));
}

#[rstest]
#[case("fin", End::Fin)]
#[case("reset", RESET)]
#[tokio::test]
async fn partial_headers_never_end(#[case] close: &str, #[case] end: End) {
    let (text, ended) = received("partial_headers", close).await;
    assert_eq!(ended, end);
    // A reset may overtake what was written; a FIN may not.
    if close == "fin" {
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && !text.contains("\r\n\r\n"), "{text}");
    }
}

#[tokio::test]
async fn a_partial_body_is_shorter_than_its_length() {
    let (text, end) = received("partial_body", "fin").await;
    assert!(text.contains("Content-Length: 10\r\n") && text.ends_with("\r\n\r\n01234"), "{text}");
    assert_eq!(end, End::Fin);
}

#[tokio::test]
async fn garbage_is_not_http() {
    let (text, _) = received("garbage", "fin").await;
    assert!(!text.contains("HTTP/") && !text.is_empty(), "{text}");
}

#[tokio::test]
async fn duplicate_lengths_disagree() {
    let (text, _) = received("duplicate_content_length", "fin").await;
    assert!(text.contains("Content-Length: 10\r\nContent-Length: 11\r\n") && text.ends_with(BODY), "{text}");
}

#[tokio::test]
async fn duplicate_transfer_encodings_hold_a_well_formed_chunk() {
    let (text, _) = received("duplicate_transfer_encoding", "fin").await;
    assert_eq!(text.matches("Transfer-Encoding: chunked\r\n").count(), 2, "{text}");
    assert!(text.ends_with("\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn a_bad_chunk_follows_a_good_one() {
    let (text, _) = received("bad_chunk", "fin").await;
    assert!(text.ends_with("\r\n\r\n5\r\n01234\r\nzz\r\n"), "{text}");
}

#[tokio::test]
async fn a_route_can_misbehave_beside_one_that_does_not() {
    let backend = backend("routes: [{path: /broken, methods: [GET], response: {delivery: nothing}}]").await;
    let mut client = Client::to(&backend).await;
    assert_eq!(client.get("/brokenness").await.status, 200);
    client.send("GET /broken/1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.end().await, End::Fin);
}
