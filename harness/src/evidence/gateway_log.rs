//! The gateway's log of a phase, each line read and joined to the request that it is about.

use std::collections::BTreeMap;

use gateways::GatewayKind;
use gateways::nginx::NginxError;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::kubernetes::logs::LogLine;
use crate::signature::{GatewayLine, LogRecord};

/// nginx writes a request's last error line and its access line at the same moment, but through two pipes, and dates
/// neither finer than a millisecond.
const TWO_PIPES: SignedDuration = SignedDuration::from_millis(100);

/// Reads all lines of one pod's log. The agent's own lines are left out: nothing that the lab itself says may meet an
/// expectation.
pub fn read(gateway: GatewayKind, lines: &[LogLine]) -> Vec<GatewayLine> {
    let parsed: Vec<(&LogLine, Option<gateways::LogRecord>)> = lines
        .iter()
        .filter(|line| !line.text.starts_with(gateways::AGENT_PREFIX))
        .map(|line| (line, gateways::parse_line(gateway, &line.text)))
        .collect();
    let mut joined = join_nginx_errors(&parsed);
    joined.extend(join_traefik_errors(&parsed));
    parsed
        .into_iter()
        .enumerate()
        .map(|(index, (line, record))| {
            let own = record.as_ref().and_then(|record| record.request_id()).and_then(|id| id.parse().ok());
            GatewayLine {
                text: line.text.clone(),
                at: line.at,
                request_id: own.or_else(|| joined.remove(&index)),
                record: record.map_or(LogRecord::Other, convert),
            }
        })
        .collect()
}

/// Request ids that lines of the access log carry.
pub fn logged_requests(lines: &[GatewayLine]) -> impl Iterator<Item = Uuid> {
    lines
        .iter()
        .filter(|line| !matches!(line.record, LogRecord::NginxError { .. } | LogRecord::Traefik { status: None, .. } | LogRecord::Other))
        .filter_map(|line| line.request_id)
}

/// An error line of nginx carries no request id, but the number of the client's connection; of the requests on that connection it
/// belongs to the one that was under way at that moment.
fn join_nginx_errors(parsed: &[(&LogLine, Option<gateways::LogRecord>)]) -> BTreeMap<usize, Uuid> {
    struct Access {
        connection: u64,
        began: Timestamp,
        ended: Timestamp,
        id: Uuid,
    }
    let mut accesses: Vec<Access> = parsed
        .iter()
        .filter_map(|(line, record)| match record {
            Some(gateways::LogRecord::NginxAccess(access)) => Some(Access {
                connection: access.connection?,
                began: line.at?.checked_sub(SignedDuration::try_from(access.request_time).ok()? + TWO_PIPES).ok()?,
                ended: line.at?.checked_add(TWO_PIPES).ok()?,
                id: access.request_id.as_deref()?.parse().ok()?,
            }),
            _ => None,
        })
        .collect();
    accesses.sort_by_key(|access| access.ended);
    let mut joined = BTreeMap::new();
    for (index, (line, record)) in parsed.iter().enumerate() {
        let Some(gateways::LogRecord::NginxError(error)) = record else { continue };
        let (Some(connection), Some(at)) = (error.connection, line.at) else { continue };
        let found = accesses.iter().find(|access| access.connection == connection && (access.began..=access.ended).contains(&at));
        if let Some(access) = found {
            joined.insert(index, access.id);
        }
    }
    joined
}

/// Traefik tells the cause of a failed request in a line of its own, which says nothing of the request but the status that it will get,
/// and for some causes the server (`dial tcp 10.244.1.2:8080: …`). The request is one that was under way at that moment, got that status
/// and was sent to that server. Where several fit, the one that ended first after the line: Traefik writes both in one go.
fn join_traefik_errors(parsed: &[(&LogLine, Option<gateways::LogRecord>)]) -> BTreeMap<usize, Uuid> {
    struct Access<'a> {
        status: u16,
        server: Option<&'a str>,
        began: Timestamp,
        ended: Timestamp,
        id: Uuid,
    }
    let mut accesses: Vec<Access> = parsed
        .iter()
        .filter_map(|(line, record)| match record {
            Some(gateways::LogRecord::TraefikAccess(access)) => Some(Access {
                status: access.status,
                server: access.server_address.as_deref(),
                began: line.at?.checked_sub(SignedDuration::try_from(access.duration?).ok()? + TWO_PIPES).ok()?,
                ended: line.at?.checked_add(TWO_PIPES).ok()?,
                id: access.request_id.as_deref()?.parse().ok()?,
            }),
            _ => None,
        })
        .collect();
    accesses.sort_by_key(|access| access.ended);
    let mut joined = BTreeMap::new();
    for (index, (line, record)) in parsed.iter().enumerate() {
        let Some(gateways::LogRecord::TraefikMessage(message)) = record else { continue };
        let (Some(error), Some(at)) = (&message.error, line.at) else { continue };
        let Some(status) = message.message.split(' ').next().and_then(|status| status.parse::<u16>().ok()) else { continue };
        let dialled = error.strip_prefix("dial tcp ").and_then(|rest| rest.split_once(": ")).map(|(address, _)| address);
        let fits = |access: &Access| {
            access.status == status
                && (access.began..=access.ended).contains(&at)
                && dialled.is_none_or(|address| access.server.is_none_or(|server| server == address))
        };
        if let Some(place) = accesses.iter().position(fits) {
            // One cause to a request: without retries there is no second.
            joined.insert(index, accesses.remove(place).id);
        }
    }
    joined
}

fn convert(record: gateways::LogRecord) -> LogRecord {
    match record {
        gateways::LogRecord::NginxAccess(access) => LogRecord::NginxAccess {
            status: access.status,
            upstream_status: access.attempts.iter().map(|attempt| attempt.status).collect(),
            upstream_answered: access.attempts.iter().map(|attempt| attempt.header_time.is_some()).collect(),
            upstream_address: access.attempts.into_iter().map(|attempt| attempt.address).collect(),
        },
        gateways::LogRecord::NginxError(error) => LogRecord::NginxError {
            level: format!("{:?}", error.severity).to_lowercase(),
            message: without_errno(&error),
            errno: error.errno.as_ref().map(|errno| errno.number),
            doing: error.activity,
            upstream: error.upstream,
        },
        gateways::LogRecord::EnvoyAccess(access) => LogRecord::Envoy {
            status: access.response_code,
            response_flags: access.response_flags.iter().map(|flag| flag.short().to_owned()).collect(),
            response_code_details: access.response_code_details.unwrap_or_default(),
            transport_failure: access.upstream_transport_failure_reason,
            upstream_host: access.upstream_host,
            attempts: Some(access.upstream_request_attempt_count),
        },
        gateways::LogRecord::HaproxyAccess(access) => LogRecord::Haproxy {
            status: access.status.map_or(-1, i32::from),
            termination_state: access.termination_state,
            server: access.server,
            retries: Some(access.retries),
        },
        gateways::LogRecord::TraefikAccess(access) => LogRecord::Traefik { status: Some(access.status), error: None },
        gateways::LogRecord::TraefikMessage(message) => LogRecord::Traefik { status: None, error: message.error },
    }
}

/// The wording of an errno is libc's and differs between machines.
fn without_errno(error: &NginxError) -> String {
    match &error.errno {
        Some(errno) => {
            let marker = format!(" ({}: ", errno.number);
            match error.message.find(&marker) {
                Some(start) => {
                    let end = error.message[start..].find(')').map_or(error.message.len(), |length| start + length + 1);
                    format!("{}{}", &error.message[..start], &error.message[end..])
                }
                None => error.message.clone(),
            }
        }
        None => error.message.clone(),
    }
}

/// A little earlier than a phase began: the gateway's clock is the same, but log lines are dated by the container runtime.
pub fn just_before(start: Timestamp) -> Timestamp {
    start.checked_sub(SignedDuration::from_millis(5)).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two requests at the same time, each tried at two servers that time out, and a later one on the first one's connection.
    #[test]
    fn errors_of_nginx_are_joined_to_the_request_that_was_under_way() {
        let ids = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"];
        let at = |time: &str| Some(format!("2026-11-21T04:00:0{time}Z").parse().unwrap());
        let error = |time: &str, connection: u32| LogLine {
            at: at(time),
            text: format!(
                "2026/11/21 04:00:00 [error] 20#20: *{connection} upstream timed out (110: Connection timed out) while reading response \
                 header from upstream, client: 10.244.0.2, server: shop.test, request: \"GET / HTTP/1.1\", upstream: \
                 \"http://10.244.1.2:8080/\", host: \"shop.test\""
            ),
        };
        let access = |time: &str, took: &str, connection: u32, id: &str| LogLine {
            at: at(time),
            text: format!(
                "10.244.0.2 - - [21/Nov/2026:04:00:00 +0000] \"GET / HTTP/1.1\" 504 160 \"-\" \"gatelab-probe\" 120 {took} [shop-shop-http] [] \
                 10.244.1.2:8080 0 1.000 504 {id} \"shop.test\" \"0.001\" \"-\" \"{connection}\""
            ),
        };
        let lines = [
            error("1.000", 7),
            error("1.001", 8),
            error("2.000", 7),
            access("2.001", "2.000", 7, ids[0]),
            // The access line came first through its pipe.
            access("2.002", "2.000", 8, ids[1]),
            error("2.003", 8),
            error("3.501", 7),
            access("3.502", "1.000", 7, ids[2]),
        ];
        let read = read(GatewayKind::Nginx, &lines);
        let joined: Vec<_> = read.iter().map(|line| line.request_id.map(|id| id.to_string())).collect();
        let expected: Vec<_> = [0, 1, 0, 0, 1, 1, 2, 2].map(|index: usize| Some(ids[index].to_owned())).into();
        assert_eq!(joined, expected);
        assert!(
            matches!(&read[0].record, LogRecord::NginxError { errno: Some(110), message, .. } if message == "upstream timed out"),
            "{:?}",
            read[0]
        );
    }

    /// Two requests under way at the same time, sent to two servers, and a later one without a line of its own.
    #[test]
    fn causes_that_traefik_tells_are_joined_by_time_status_and_server() {
        let ids = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"];
        let at = |time: &str| Some(format!("2026-11-21T04:00:0{time}Z").parse().unwrap());
        let cause = |time: &str, status: &str, error: &str| LogLine {
            at: at(time),
            text: format!(
                r#"{{"level":"debug","error":"{error}","time":"2026-11-21T04:00:01Z","caller":"proxy.go:199","message":"{status}"}}"#
            ),
        };
        let access = |time: &str, took_ms: u64, status: u16, server: &str, id: &str| LogLine {
            at: at(time),
            text: format!(
                r#"{{"DownstreamStatus":{status},"Duration":{},"RequestMethod":"GET","ServiceAddr":"{server}","level":"info","msg":"","request_X-Request-Id":"{id}"}}"#,
                took_ms * 1_000_000
            ),
        };
        let lines = [
            cause("1.000", "504 Gateway Timeout", "dial tcp 10.244.1.3:8080: i/o timeout"),
            access("1.001", 500, 504, "10.244.1.2:8080", ids[0]),
            access("1.002", 500, 504, "10.244.1.3:8080", ids[1]),
            cause("1.003", "504 Gateway Timeout", "dial tcp 10.244.1.2:8080: i/o timeout"),
            cause("1.004", "502 Bad Gateway", "EOF"),
            access("2.500", 100, 502, "10.244.1.2:8080", ids[2]),
            cause("2.499", "502 Bad Gateway", "EOF"),
            cause("2.500", "502 Bad Gateway", "EOF"),
        ];
        let read = read(GatewayKind::Traefik, &lines);
        let joined: Vec<_> = read.iter().map(|line| line.request_id.map(|id| id.to_string())).collect();
        let expected: Vec<_> = [Some(1), Some(0), Some(1), Some(0), None, Some(2), Some(2), None]
            .map(|index: Option<usize>| index.map(|index| ids[index].to_owned()))
            .into();
        assert_eq!(joined, expected);
        assert_eq!(logged_requests(&read).count(), 3, "a cause is no line of the access log");
    }

    #[test]
    fn what_the_agent_says_is_no_evidence() {
        let line = LogLine { at: None, text: "gateway-agent: 502 connect() failed".into() };
        assert!(read(GatewayKind::Nginx, &[line]).is_empty());
    }
}
