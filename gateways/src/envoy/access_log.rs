//! Envoy's access log, one JSON object a line.

use std::time::Duration;

use serde::Serialize;

use super::ResponseFlag;

/// One line of Envoy's access log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EnvoyAccess {
    /// RFC 3339 with milliseconds.
    pub start_time: String,
    pub method: Option<String>,
    pub path: Option<String>,
    pub protocol: Option<String>,
    pub authority: Option<String>,
    /// 0 where the client left before there was a response.
    pub response_code: u16,
    pub response_flags: Vec<ResponseFlag>,
    /// Who made the response and why, e.g. `via_upstream`, `upstream_reset_before_response_started{connection_termination}`.
    pub response_code_details: Option<String>,
    pub connection_termination_details: Option<String>,
    /// e.g. `delayed connect error: Connection refused`, `TLS_error:|…:WRONG_VERSION_NUMBER:TLS_error_end`.
    pub upstream_transport_failure_reason: Option<String>,
    pub upstream_host: Option<String>,
    pub upstream_cluster: Option<String>,
    pub upstream_local_address: Option<String>,
    pub downstream_remote_address: Option<String>,
    pub downstream_local_address: Option<String>,
    /// From the request's first byte to the response's last.
    pub duration: Option<Duration>,
    /// Until the response's first byte came from the upstream (`RESPONSE_DURATION`).
    pub response_duration: Option<Duration>,
    /// How long the upstream's connection took to stand; `None` for a reused one.
    pub upstream_connect_duration: Option<Duration>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub request_id: Option<String>,
    pub connection_id: Option<u64>,
    pub upstream_connection_id: Option<u64>,
    pub upstream_request_attempt_count: u32,
    pub route_name: Option<String>,
    pub user_agent: Option<String>,
}

impl EnvoyAccess {
    /// Reads a line that was written with the lab's `json_format`.
    pub fn parse(line: &str) -> Option<Self> {
        let _ = line;
        None
    }
}
