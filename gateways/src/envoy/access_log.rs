//! Envoy's access log, one JSON object a line.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::ResponseFlag;

/// The access logger that writes what [`EnvoyAccess::parse`] reads (format strings: Envoy's configuration/observability/access_log).
pub(crate) fn access_log_config() -> Value {
    json!({
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": { "json_format": {
                "start_time": "%START_TIME%",
                "method": "%REQ(:METHOD)%",
                "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
                "protocol": "%PROTOCOL%",
                "authority": "%REQ(:AUTHORITY)%",
                "response_code": "%RESPONSE_CODE%",
                "response_flags": "%RESPONSE_FLAGS%",
                "response_code_details": "%RESPONSE_CODE_DETAILS%",
                "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
                "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
                "upstream_host": "%UPSTREAM_HOST%",
                "upstream_cluster": "%UPSTREAM_CLUSTER%",
                "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
                "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
                "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
                "duration": "%DURATION%",
                "response_duration": "%RESPONSE_DURATION%",
                "upstream_connect_duration": "%COMMON_DURATION(US_CX_BEG:US_CX_END:us)%",
                "bytes_received": "%BYTES_RECEIVED%",
                "bytes_sent": "%BYTES_SENT%",
                "request_id": "%REQ(X-REQUEST-ID)%",
                "connection_id": "%CONNECTION_ID%",
                "upstream_connection_id": "%UPSTREAM_CONNECTION_ID%",
                "upstream_request_attempt_count": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                "route_name": "%ROUTE_NAME%",
                "user_agent": "%REQ(USER-AGENT)%",
            } },
        },
    })
}

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
        if !line.starts_with('{') {
            return None;
        }
        let fields: Value = serde_json::from_str(line).ok()?;
        // Without a value Envoy writes null, or a hyphen where the value is text
        let text = |name: &str| fields[name].as_str().filter(|text| !text.is_empty() && *text != "-").map(str::to_owned);
        let number = |name: &str| fields[name].as_u64().or_else(|| fields[name].as_str()?.parse().ok());
        let flags = text("response_flags").unwrap_or_default();
        Some(Self {
            start_time: text("start_time")?,
            method: text("method"),
            path: text("path"),
            protocol: text("protocol"),
            authority: text("authority"),
            response_code: u16::try_from(number("response_code")?).ok()?,
            response_flags: flags.split(',').filter(|flag| !flag.is_empty()).map(ResponseFlag::from_name).collect(),
            response_code_details: text("response_code_details"),
            connection_termination_details: text("connection_termination_details"),
            upstream_transport_failure_reason: text("upstream_transport_failure_reason"),
            upstream_host: text("upstream_host"),
            upstream_cluster: text("upstream_cluster"),
            upstream_local_address: text("upstream_local_address"),
            downstream_remote_address: text("downstream_remote_address"),
            downstream_local_address: text("downstream_local_address"),
            duration: number("duration").map(Duration::from_millis),
            response_duration: number("response_duration").map(Duration::from_millis),
            upstream_connect_duration: number("upstream_connect_duration").map(Duration::from_micros),
            bytes_received: number("bytes_received").unwrap_or_default(),
            bytes_sent: number("bytes_sent").unwrap_or_default(),
            request_id: text("request_id"),
            connection_id: number("connection_id"),
            upstream_connection_id: number("upstream_connection_id"),
            upstream_request_attempt_count: number("upstream_request_attempt_count")
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or_default(),
            route_name: text("route_name"),
            user_agent: text("user_agent"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by Envoy 1.40.0.
    const REFUSED: &str = r#"{"authority":"shop.test","bytes_received":0,"bytes_sent":98,"connection_id":2,"connection_termination_details":null,"downstream_local_address":"127.0.0.1:35771","downstream_remote_address":"127.0.0.1:50100","duration":0,"method":"GET","path":"/","protocol":"HTTP/1.1","request_id":"refused","response_code":503,"response_code_details":"upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}","response_duration":null,"response_flags":"UF","route_name":"shop/shop","start_time":"2026-11-21T04:44:15.016Z","upstream_cluster":"shop/shop/80/95dce54a95","upstream_connect_duration":null,"upstream_connection_id":0,"upstream_host":"127.0.0.1:36045","upstream_local_address":null,"upstream_request_attempt_count":1,"upstream_transport_failure_reason":"delayed_connect_error:_Connection_refused","user_agent":null}"#;

    #[test]
    fn a_refused_connection() {
        insta::assert_json_snapshot!(EnvoyAccess::parse(REFUSED).unwrap());
    }

    #[test]
    fn several_flags_and_unknown_ones() {
        let line = REFUSED.replace(r#""response_flags":"UF""#, r#""response_flags":"URX,UF,XYZ""#);
        let flags = EnvoyAccess::parse(&line).unwrap().response_flags;
        let unknown = ResponseFlag::Unknown("XYZ".to_owned());
        assert_eq!(flags, [ResponseFlag::UpstreamRetryLimitExceeded, ResponseFlag::UpstreamConnectionFailure, unknown]);
        let none = REFUSED.replace(r#""response_flags":"UF""#, r#""response_flags":"-""#);
        assert_eq!(EnvoyAccess::parse(&none).unwrap().response_flags, []);
    }

    #[test]
    fn flags_go_by_short_and_long_names() {
        for flag in ResponseFlag::ALL {
            assert_eq!(ResponseFlag::from_name(flag.short()), *flag);
            assert_eq!(ResponseFlag::from_name(flag.long()), *flag);
        }
    }

    #[test]
    fn other_lines_are_no_records() {
        for line in
            ["", "{}", "{\"response_code\": 200}", "[2026-11-21 04:44:15.011][25942][warning][main] x", &REFUSED[..REFUSED.len() - 1]]
        {
            assert_eq!(EnvoyAccess::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(cut in 0usize..900, extra in "[{}\",:0-9a-z]{0,6}") {
            let cut = cut.min(REFUSED.len());
            let _ = EnvoyAccess::parse(&format!("{}{extra}{}", &REFUSED[..cut], &REFUSED[cut..]));
        }
    }
}
