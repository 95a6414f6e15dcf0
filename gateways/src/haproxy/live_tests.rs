//! What broken backends look like in its own log.

use std::io::{Read, Write};

use super::{HaproxyAccess, KIND};
use crate::agent::live_tests::{Bench, free_port, hold, plaintext_server, read_head, reset, server};

#[tokio::test(flavor = "multi_thread")]
async fn signatures() {
    let Some(mut bench) = Bench::new(KIND) else { return };
    let settings = "{connect-timeout: 200ms, read-timeout: 200ms}";
    // Status, state, retries; a failing health check may take the server out meanwhile, which spares the tries and nothing else.
    let cases: [(&str, u16, u16, &str, Option<&str>); 6] = [
        ("refused", free_port(), 503, "SC--", None),
        ("silent", server(|stream| hold(&stream)), 504, "sH--", None),
        (
            "closed",
            server(|mut stream| {
                let _ = read_head(&mut stream);
            }),
            502,
            "SH--",
            None,
        ),
        (
            "reset",
            server(|mut stream| {
                read_head(&mut stream);
                reset(stream);
            }),
            502,
            "SH--",
            None,
        ),
        (
            "garbage",
            server(|mut stream| {
                read_head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nbroken header\0\r\n\r\n");
                let _ = stream.read(&mut [0]);
            }),
            502,
            "PH--",
            None,
        ),
        ("plaintext", plaintext_server(), 503, "SC--", Some("")),
    ];
    for (id, port, status, state, tls_error) in cases {
        let tls = if tls_error.is_some() { "backend-protocol: HTTPS, " } else { "" };
        bench.apply(port, &settings.replacen('{', &format!("{{{tls}"), 1)).await.unwrap();
        assert_eq!(bench.status(id).await, status, "{id}");
        let access = bench.access_as(id, HaproxyAccess::parse, |access| access.request_id.as_deref()).await;
        assert_eq!((access.status, access.termination_state.as_str()), (Some(status), state), "{access:#?}");
        assert_eq!(access.response_time, None, "{access:#?}");
    }
    bench.print_log();
    bench.gateway.quit().await;
}
