//! What broken backends look like in its own log.

use std::io::{Read, Write};

use super::{EnvoyAccess, KIND, ResponseFlag};
use crate::agent::live_tests::{Bench, free_port, hold, plaintext_server, read_head, reset, server};

#[tokio::test(flavor = "multi_thread")]
async fn signatures() {
    let Some(mut bench) = Bench::new(KIND) else { return };
    let settings = "{connect-timeout: 200ms, read-timeout: 200ms}";
    let cases: [(&str, u16, u16, ResponseFlag, &str); 6] = [
        (
            "refused",
            free_port(),
            503,
            ResponseFlag::UpstreamConnectionFailure,
            "upstream_reset_before_response_started{remote_connection_failure",
        ),
        ("silent", server(|stream| hold(&stream)), 504, ResponseFlag::UpstreamRequestTimeout, "response_timeout"),
        (
            "closed",
            server(|mut stream| {
                let _ = read_head(&mut stream);
            }),
            503,
            ResponseFlag::UpstreamConnectionTermination,
            "upstream_reset_before_response_started{connection_termination",
        ),
        (
            "reset",
            server(|mut stream| {
                read_head(&mut stream);
                reset(stream);
            }),
            503,
            ResponseFlag::UpstreamConnectionTermination,
            "upstream_reset_before_response_started{connection_termination",
        ),
        (
            "garbage",
            server(|mut stream| {
                read_head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nbroken header\0\r\n\r\n");
                let _ = stream.read(&mut [0]);
            }),
            502,
            ResponseFlag::UpstreamProtocolError,
            "upstream_reset_before_response_started{protocol_error",
        ),
        (
            "plaintext",
            plaintext_server(),
            503,
            ResponseFlag::UpstreamConnectionFailure,
            "upstream_reset_before_response_started{remote_connection_failure",
        ),
    ];
    for (id, port, status, flag, details) in cases {
        let tls = if id == "plaintext" { "backend-protocol: HTTPS, " } else { "" };
        bench.apply(port, &settings.replacen('{', &format!("{{{tls}"), 1)).await.unwrap();
        assert_eq!(bench.status(id).await, status, "{id}");
        let access = bench.access_as(id, EnvoyAccess::parse, |access| access.request_id.as_deref()).await;
        assert!(access.response_flags.contains(&flag), "{access:#?}");
        assert!(access.response_code_details.as_deref().unwrap_or_default().starts_with(details), "{access:#?}");
        assert_eq!(access.response_code, status);
    }
    bench.print_log();
    bench.gateway.quit().await;
}
