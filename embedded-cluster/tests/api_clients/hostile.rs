//! Clients that mean no good, or know no better: each gets a proper `Status`, and the server lives on.

use http::Request;
use kube::Client;
use rand::RngExt;

use super::kube_crate::{client, within};
use super::lab::Lab;

const CONFIG_MAPS: &str = "/api/v1/namespaces/shop/configmaps";

/// The code and message of a refusal; `None` when it was accepted.
async fn send(client: &Client, method: &str, path: &str, media: &str, body: impl Into<Vec<u8>>) -> Option<(u16, String)> {
    let request = Request::builder().method(method).uri(path).header("content-type", media).body(body.into()).unwrap();
    match within(client.request_text(request)).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some((status.code, status.message)),
        Err(other) => panic!("{method} {path}: no Status but {other}"),
    }
}

#[tokio::test]
async fn malformed_requests_get_a_status() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let bomb: String = std::iter::once("a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned())
        .chain(('b'..'k').zip('a'..).map(|(this, last)| format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 9].join(","))))
        .collect();
    let json = "application/json";
    let cases: Vec<(u16, &str, String, &str, Vec<u8>)> = vec![
        (400, "POST", CONFIG_MAPS.into(), json, b"{".to_vec()),
        (400, "POST", CONFIG_MAPS.into(), json, b"[1]".to_vec()),
        (400, "POST", CONFIG_MAPS.into(), json, "[".repeat(100_000).into()),
        (400, "POST", CONFIG_MAPS.into(), json, br#"{"metadata":[]}"#.to_vec()),
        (400, "POST", CONFIG_MAPS.into(), json, br#"{"metadata":{"name":5}}"#.to_vec()),
        (400, "POST", CONFIG_MAPS.into(), json, br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#.to_vec()),
        (400, "POST", CONFIG_MAPS.into(), "application/yaml", bomb.into_bytes()),
        (400, "POST", CONFIG_MAPS.into(), "application/yaml", b"\xff\xfe".to_vec()),
        (400, "POST", CONFIG_MAPS.into(), "application/vnd.kubernetes.protobuf", b"k8s\0\xff\xff".to_vec()),
        (413, "POST", CONFIG_MAPS.into(), json, vec![b' '; 4 * 1024 * 1024]),
        (415, "POST", CONFIG_MAPS.into(), "text/plain", b"a".to_vec()),
        (422, "POST", CONFIG_MAPS.into(), json, br#"{"metadata":{}}"#.to_vec()),
        (404, "PATCH", format!("{CONFIG_MAPS}/none"), "application/merge-patch+json", b"{}".to_vec()),
        (400, "PATCH", format!("{CONFIG_MAPS}/none"), "application/apply-patch+yaml", b"{}".to_vec()),
        (400, "GET", format!("{CONFIG_MAPS}?labelSelector=((("), json, vec![]),
        (400, "GET", format!("{CONFIG_MAPS}?fieldSelector=a"), json, vec![]),
        (400, "GET", format!("{CONFIG_MAPS}?continue=zzz"), json, vec![]),
        (400, "GET", format!("{CONFIG_MAPS}?limit=many"), json, vec![]),
        (404, "GET", "/apis/nowhere.example/v1/things".into(), json, vec![]),
        (405, "POST", "/api/v1/pods".into(), json, b"{}".to_vec()),
        (405, "DELETE", "/api/v1/namespaces".into(), json, vec![]),
    ];
    for (expected, method, path, media, body) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let (code, message) = send(&client, method, &path, media, body).await.unwrap_or_default();
        assert_eq!(code, expected, "{method} {path} {shown}: {message}");
    }
}

#[tokio::test]
async fn random_patches_never_break_the_server() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let object = r#"{"metadata":{"name":"a"},"data":{"k":"v"}}"#;
    assert_eq!(send(&client, "POST", CONFIG_MAPS, "application/json", object).await, None);
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"metadata\"",
        "\"data\"",
        "\"$patch\"",
        "\"replace\"",
        "null",
        "1",
        "\"op\"",
        "\"path\"",
        "\"/data\"",
        "\"k\"",
    ];
    let medias = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    for round in 0..400 {
        let body: String = {
            let mut random = rand::rng();
            (0..random.random_range(1..20)).map(|_| words[random.random_range(0..words.len())]).collect()
        };
        let path = format!("{CONFIG_MAPS}/a?fieldManager=m&force=true");
        if let Some((code, message)) = send(&client, "PATCH", &path, medias[round % medias.len()], body.clone()).await {
            assert!((400..500).contains(&code), "{body}: {code} {message}");
        }
    }
    let request = Request::builder().uri(format!("{CONFIG_MAPS}/a")).body(Vec::new()).unwrap();
    assert!(within(client.request_text(request)).await.unwrap().contains("\"name\":\"a\""));
}

#[tokio::test]
async fn a_stranger_learns_nothing() {
    let lab = Lab::start().await;
    let client = super::kube_crate::token_client(&lab, "").await;
    for path in ["/api", "/apis", "/openapi/v3", "/api/v1/secrets", "/api/v1/namespaces/shop/pods/p/exec?command=sh&stdout=true"] {
        assert_eq!(send(&client, "GET", path, "application/json", "").await, Some((401, "Unauthorized".to_owned())), "{path}");
    }
}

#[tokio::test]
async fn many_idle_watches_do_not_slow_others() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let mut watches = Vec::new();
    for _ in 0..200 {
        let request = Request::builder().uri(format!("{CONFIG_MAPS}?watch=true")).body(Vec::new()).unwrap();
        watches.push(within(client.request_stream(request)).await.unwrap());
    }
    for n in 0..50 {
        let object = format!(r#"{{"metadata":{{"name":"c{n}"}},"data":{{"k":"{}"}}}}"#, "x".repeat(1000));
        assert_eq!(send(&client, "POST", CONFIG_MAPS, "application/json", object).await, None);
    }
}
