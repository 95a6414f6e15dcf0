//! What a gateway wrote into its pod's log, as typed records.

use serde::Serialize;

use crate::{
    GatewayKind,
    envoy::EnvoyAccess,
    haproxy::HaproxyAccess,
    nginx::{NginxAccess, NginxError},
    traefik::{TraefikAccess, TraefikMessage},
};

/// One line of a gateway's own log.
// Records are read one by one and matched on; a box each would only be in the way.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum LogRecord {
    NginxAccess(NginxAccess),
    NginxError(NginxError),
    EnvoyAccess(EnvoyAccess),
    HaproxyAccess(HaproxyAccess),
    TraefikAccess(TraefikAccess),
    TraefikMessage(TraefikMessage),
}

impl LogRecord {
    /// The `x-request-id` of the request that the line is about, where the line carries it.
    ///
    /// nginx's error log knows no request id: its lines are joined to access-log lines by the number of the client connection.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::NginxAccess(access) => access.request_id.as_deref(),
            Self::NginxError(_) | Self::TraefikMessage(_) => None,
            Self::EnvoyAccess(access) => access.request_id.as_deref(),
            Self::HaproxyAccess(access) => access.request_id.as_deref(),
            Self::TraefikAccess(access) => access.request_id.as_deref(),
        }
    }
}

/// Prefix of every line that the agent itself writes. Such a line is never a record, so that no expectation about a gateway can be
/// met by the lab's own words.
pub const AGENT_PREFIX: &str = "gateway-agent: ";

/// Reads one line of the pod log of a gateway; `None` for lines that are not records (start-up chatter, the agent's own lines).
pub fn parse_line(gateway: GatewayKind, line: &str) -> Option<LogRecord> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.starts_with(AGENT_PREFIX) {
        return None;
    }
    match gateway {
        GatewayKind::Nginx => {
            NginxAccess::parse(line).map(LogRecord::NginxAccess).or_else(|| NginxError::parse(line).map(LogRecord::NginxError))
        }
        GatewayKind::Envoy => EnvoyAccess::parse(line).map(LogRecord::EnvoyAccess),
        GatewayKind::Haproxy => HaproxyAccess::parse(line).map(LogRecord::HaproxyAccess),
        GatewayKind::Traefik => {
            TraefikAccess::parse(line).map(LogRecord::TraefikAccess).or_else(|| TraefikMessage::parse(line).map(LogRecord::TraefikMessage))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_lines_are_never_records() {
        let error = "2026/11/21 04:41:58 [error] 1#1: *2 connect() failed (111: Connection refused) while connecting to upstream";
        assert!(parse_line(GatewayKind::Nginx, error).is_some());
        assert_eq!(parse_line(GatewayKind::Nginx, &format!("{AGENT_PREFIX}{error}")), None);
        assert_eq!(parse_line(GatewayKind::Envoy, &format!("{AGENT_PREFIX}{{}}")), None);
    }
}
