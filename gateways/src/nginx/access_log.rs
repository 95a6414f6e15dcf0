//! nginx's access log: `upstreaminfo` as ingress-nginx defines it, extended at its end by what the lab needs.

use std::time::Duration;

use serde::Serialize;

/// The `log_format` that [`NginxAccess::parse`] reads. Up to `$req_id` it is ingress-nginx's `log-format-upstream` word for word
/// (internal/ingress/controller/config/config.go); behind it come the request's host and the upstream's connect and header times.
pub const LOG_FORMAT: &str = concat!(
    r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" "#,
    r#"$request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr "#,
    r#"$upstream_response_length $upstream_response_time $upstream_status $req_id "#,
    r#""$host" "$upstream_connect_time" "$upstream_header_time""#
);

/// One try at one upstream server (nginx logs a list of them where `proxy_next_upstream` made it try again).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UpstreamAttempt {
    /// `address:port`, or the upstream's name where nginx had no server to try.
    pub address: String,
    /// Status that the upstream gave, or the one that nginx made for a failed try (502, 504).
    pub status: Option<u16>,
    /// Bytes of the upstream's response.
    pub response_length: Option<u64>,
    /// Time until the connection stood (zero for a reused one); `None` where it never did.
    pub connect_time: Option<Duration>,
    /// Time until the response's header was read; `None` where it never was.
    pub header_time: Option<Duration>,
    /// Time until the last byte of the response, or until the try failed.
    pub response_time: Option<Duration>,
}

/// One line of nginx's access log. Times have nginx's resolution of a millisecond.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct NginxAccess {
    pub remote_address: String,
    /// nginx's `$time_local`, e.g. `21/Nov/2026:04:10:11 +0000`.
    pub time: String,
    /// The request line as the client sent it.
    pub request: String,
    pub method: Option<String>,
    /// Request target with query.
    pub target: Option<String>,
    pub status: u16,
    pub body_bytes_sent: u64,
    pub user_agent: Option<String>,
    pub request_length: u64,
    pub request_time: Duration,
    /// ingress-nginx's name of the backend: `<namespace>-<service>-<port>`; `None` where no backend was chosen.
    pub upstream_name: Option<String>,
    pub attempts: Vec<UpstreamAttempt>,
    pub request_id: Option<String>,
    pub host: Option<String>,
}

impl NginxAccess {
    /// Reads a line that was written with [`LOG_FORMAT`].
    pub fn parse(line: &str) -> Option<Self> {
        let _ = line;
        None
    }
}
