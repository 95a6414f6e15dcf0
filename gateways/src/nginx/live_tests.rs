//! What broken backends look like in its own log.

use std::io::Write;

use super::{KIND, NginxAccess, NginxError, NginxErrorKind};
use crate::agent::live_tests::{Bench, free_port, hold, plaintext_server, read_head, reset, server};

fn errors(bench: &Bench) -> Vec<NginxError> {
    bench.log_text().lines().filter_map(NginxError::parse).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures() {
    let Some(mut bench) = Bench::new(KIND) else { return };
    let settings = "{connect-timeout: 200ms, read-timeout: 200ms, workers: 1, buffers: {response-header: 1k}}";
    bench.apply(free_port(), settings).await.unwrap();
    assert_eq!(bench.status("refused").await, 502);
    let access = bench.access_as("refused", NginxAccess::parse, |access| access.request_id.as_deref()).await;
    assert_eq!(access.attempts.iter().map(|attempt| attempt.status).collect::<Vec<_>>(), [Some(502); 3]);
    assert!(access.attempts.iter().all(|attempt| attempt.connect_time.is_none()));
    let cases: [(&str, u16, u16, NginxErrorKind, Option<&str>); 6] = [
        ("silent", server(|stream| hold(&stream)), 504, NginxErrorKind::UpstreamTimedOut, Some("ETIMEDOUT")),
        (
            "closed",
            server(|mut stream| {
                let _ = read_head(&mut stream);
            }),
            502,
            NginxErrorKind::UpstreamPrematurelyClosed,
            None,
        ),
        (
            "reset",
            server(|mut stream| {
                read_head(&mut stream);
                reset(stream);
            }),
            502,
            NginxErrorKind::ReceiveFailed,
            Some("ECONNRESET"),
        ),
        (
            "garbage",
            server(|mut stream| {
                read_head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nbroken header\0\r\n\r\n");
            }),
            502,
            NginxErrorKind::UpstreamInvalidHeader,
            None,
        ),
        (
            "too-big",
            server(|mut stream| {
                read_head(&mut stream);
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "x".repeat(9000)).as_bytes());
            }),
            502,
            NginxErrorKind::UpstreamHeaderTooBig,
            None,
        ),
        ("plaintext", plaintext_server(), 502, NginxErrorKind::TlsHandshakeFailed, None),
    ];
    for (id, port, status, kind, errno) in cases {
        let tls = if id == "plaintext" { "backend-protocol: HTTPS, " } else { "" };
        bench.apply(port, &settings.replacen('{', &format!("{{{tls}"), 1)).await.unwrap();
        let known = errors(&bench).len();
        assert_eq!(bench.status(id).await, status, "{id}");
        bench.access(id).await;
        let errors = &errors(&bench)[known..];
        let error = errors.iter().find(|error| error.kind == kind).unwrap_or_else(|| panic!("{id}: {errors:#?}"));
        assert_eq!(error.errno.as_ref().map(|errno| errno.name.as_str()), errno, "{id}");
        assert!(error.upstream.is_some() && error.request.is_some() && error.activity.is_some(), "{error:#?}");
    }
    bench.print_log();
    bench.gateway.quit().await;
}
