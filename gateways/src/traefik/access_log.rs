//! Traefik's access log and its own log, both JSON, one object a line.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// One line of the access log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TraefikAccess {
    pub method: Option<String>,
    pub path: Option<String>,
    pub host: Option<String>,
    /// Status that the client got.
    pub status: u16,
    /// Status behind Traefik's middlewares; the one that Traefik itself made where the server gave none. `None`: no router or service.
    pub origin_status: Option<u16>,
    pub router: Option<String>,
    pub service: Option<String>,
    /// `address:port` of the server.
    pub server_address: Option<String>,
    pub retry_attempts: u32,
    pub duration: Option<Duration>,
    pub origin_duration: Option<Duration>,
    pub request_id: Option<String>,
}

/// One line of Traefik's own log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TraefikMessage {
    pub level: String,
    pub time: Option<String>,
    /// e.g. `502 Bad Gateway`.
    pub message: String,
    /// What went wrong, in Go's words, e.g. `dial tcp 10.244.1.4:8081: connect: connection refused`.
    pub error: Option<String>,
}

impl TraefikAccess {
    pub fn parse(line: &str) -> Option<Self> {
        let value = object(line)?;
        let text = |key: &str| value[key].as_str().filter(|text| !text.is_empty() && *text != "-").map(str::to_owned);
        let number = |key: &str| value[key].as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0);
        let duration = |key: &str| value[key].as_u64().map(Duration::from_nanos);
        Some(Self {
            status: u16::try_from(value.get("DownstreamStatus")?.as_u64()?).ok()?,
            method: text("RequestMethod"),
            path: text("RequestPath"),
            host: text("RequestHost"),
            origin_status: number("OriginStatus"),
            router: text("RouterName"),
            service: text("ServiceName"),
            server_address: text("ServiceAddr"),
            retry_attempts: value["RetryAttempts"].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or_default(),
            duration: duration("Duration"),
            origin_duration: duration("OriginDuration"),
            request_id: text("request_X-Request-Id"),
        })
    }
}

impl TraefikMessage {
    pub fn parse(line: &str) -> Option<Self> {
        let value = object(line)?;
        if value.get("DownstreamStatus").is_some() {
            return None;
        }
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self { level: text("level")?, time: text("time"), message: text("message").unwrap_or_default(), error: text("error") })
    }
}

fn object(line: &str) -> Option<Value> {
    if !line.starts_with('{') {
        return None;
    }
    serde_json::from_str(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Traefik 3.7.15.
    const REFUSED: &str = r#"{"level":"debug","error":"dial tcp 127.0.0.1:9: connect: connection refused","time":"2026-11-21T05:59:57Z","caller":"github.com/traefik/traefik/v3/pkg/proxy/httputil/proxy.go:199","message":"502 Bad Gateway"}"#;
    const ACCESS: &str = r#"{"ClientAddr":"127.0.0.1:60464","ClientHost":"127.0.0.1","ClientPort":"60464","ClientUsername":"-","DownstreamContentSize":11,"DownstreamStatus":502,"Duration":419105,"OriginContentSize":11,"OriginDuration":314869,"OriginStatus":502,"Overhead":104236,"RequestAddr":"shop.test","RequestContentSize":0,"RequestCount":1,"RequestHost":"shop.test","RequestMethod":"GET","RequestPath":"/x","RequestPort":"-","RequestProtocol":"HTTP/1.1","RequestScheme":"http","RetryAttempts":0,"RouterName":"a@file","ServiceAddr":"127.0.0.1:9","ServiceName":"a@file","ServiceURL":"http://127.0.0.1:9","StartLocal":"2026-11-21T05:59:57.256074563Z","StartUTC":"2026-11-21T05:59:57.256074563Z","entryPointName":"web","level":"info","msg":"","request_X-Request-Id":"abc","time":"2026-11-21T05:59:57Z"}"#;
    const NO_SERVER: &str = r#"{"DownstreamStatus":503,"Duration":64997,"OriginStatus":0,"RequestHost":"e.test","RequestMethod":"GET","RequestPath":"/","RetryAttempts":0,"RouterName":"e@file","level":"info","msg":"","time":"2026-11-21T05:59:57Z"}"#;

    #[test]
    fn a_line_is_one_of_the_two() {
        let message = TraefikMessage::parse(REFUSED).unwrap();
        assert_eq!(message.error.as_deref(), Some("dial tcp 127.0.0.1:9: connect: connection refused"));
        assert_eq!((message.level.as_str(), message.message.as_str()), ("debug", "502 Bad Gateway"));
        assert_eq!((TraefikAccess::parse(REFUSED), TraefikMessage::parse(ACCESS)), (None, None));
        for line in ["", "{", "{}", "plain", &ACCESS[1..]] {
            assert_eq!((TraefikAccess::parse(line), TraefikMessage::parse(line)), (None, None), "{line}");
        }
    }

    #[test]
    fn an_access_line() {
        let access = TraefikAccess::parse(ACCESS).unwrap();
        assert_eq!((access.status, access.origin_status, access.retry_attempts), (502, Some(502), 0));
        assert_eq!((access.request_id.as_deref(), access.server_address.as_deref()), (Some("abc"), Some("127.0.0.1:9")));
        assert_eq!(access.origin_duration, Some(Duration::from_nanos(314_869)));
        let none = TraefikAccess::parse(NO_SERVER).unwrap();
        assert_eq!((none.status, none.origin_status, none.service), (503, None, None));
    }
}
