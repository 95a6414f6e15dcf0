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
    lines.iter().filter(|line| !matches!(line.record, LogRecord::NginxError { .. } | LogRecord::Other)).filter_map(|line| line.request_id)
}

/// An error line of nginx carries no request id, but the request line and the upstream address. It belongs to the access line
/// that has both, whose request was under way at that moment, and that has a try at that address left to explain; of several
/// the one that ended first.
fn join_nginx_errors(parsed: &[(&LogLine, Option<gateways::LogRecord>)]) -> BTreeMap<usize, Uuid> {
    struct Access<'a> {
        began: Timestamp,
        ended: Timestamp,
        id: Uuid,
        request: &'a str,
        tries: Vec<&'a str>,
    }
    let mut accesses: Vec<Access<'_>> = parsed
        .iter()
        .filter_map(|(line, record)| match record {
            Some(gateways::LogRecord::NginxAccess(access)) => Some(Access {
                began: line.at?.checked_sub(SignedDuration::try_from(access.request_time).ok()? + TWO_PIPES).ok()?,
                ended: line.at?.checked_add(TWO_PIPES).ok()?,
                id: access.request_id.as_deref()?.parse().ok()?,
                request: &access.request,
                tries: access.attempts.iter().map(|attempt| attempt.address.as_str()).collect(),
            }),
            _ => None,
        })
        .collect();
    accesses.sort_by_key(|access| access.ended);
    let mut joined = BTreeMap::new();
    for (index, (line, record)) in parsed.iter().enumerate() {
        let Some(gateways::LogRecord::NginxError(error)) = record else { continue };
        let (Some(request), Some(at)) = (&error.request, line.at) else { continue };
        let upstream = upstream_address(error);
        let found = accesses
            .iter_mut()
            .filter(|access| access.request == *request && (access.began..=access.ended).contains(&at))
            .find(|access| upstream.is_none_or(|upstream| access.tries.contains(&upstream)));
        if let Some(access) = found {
            // Each try at an address explains one error line.
            if let Some(used) = access.tries.iter().position(|tried| Some(*tried) == upstream) {
                access.tries.remove(used);
            }
            joined.insert(index, access.id);
        }
    }
    joined
}

/// `http://10.244.1.4:8080/path` -> `10.244.1.4:8080`.
fn upstream_address(error: &NginxError) -> Option<&str> {
    let upstream = error.upstream.as_deref()?;
    let rest = upstream.split_once("://").map_or(upstream, |(_, rest)| rest);
    rest.split('/').next().filter(|address| !address.is_empty())
}

fn convert(record: gateways::LogRecord) -> LogRecord {
    match record {
        gateways::LogRecord::NginxAccess(access) => LogRecord::NginxAccess {
            status: access.status,
            upstream_status: access.attempts.iter().map(|attempt| attempt.status).collect(),
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

    /// Two requests one after the other, each tried at two servers that time out: four error lines, two access lines.
    #[test]
    fn errors_of_nginx_are_joined_to_the_request_that_was_under_way() {
        let ids = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"];
        let error = |time: &str, server: &str| LogLine {
            at: Some(format!("2026-11-21T04:00:0{time}Z").parse().unwrap()),
            text: format!(
                "2026/11/21 04:00:00 [error] 20#20: *1 upstream timed out (110: Connection timed out) while reading response header from \
                 upstream, client: 10.244.0.2, server: shop.test, request: \"GET / HTTP/1.1\", upstream: \"http://{server}/\", host: \"shop.test\""
            ),
        };
        let access = |time: &str, id: &str| LogLine {
            at: Some(format!("2026-11-21T04:00:0{time}Z").parse().unwrap()),
            text: format!(
                "10.244.0.2 - - [21/Nov/2026:04:00:00 +0000] \"GET / HTTP/1.1\" 504 160 \"-\" \"gatelab-probe\" 120 2.000 [shop-shop-http] [] \
                 10.244.1.2:8080, 10.244.1.3:8080 0, 0 1.000, 1.000 504, 504 {id} \"shop.test\" \"0.001, 0.001\" \"-, -\""
            ),
        };
        let lines = [
            error("1.000", "10.244.1.2:8080"),
            error("2.000", "10.244.1.3:8080"),
            access("2.001", ids[0]),
            error("3.003", "10.244.1.2:8080"),
            // The access line came first through its pipe.
            access("4.004", ids[1]),
            error("4.005", "10.244.1.3:8080"),
        ];
        let read = read(GatewayKind::Nginx, &lines);
        let joined: Vec<_> = read.iter().map(|line| line.request_id.map(|id| id.to_string())).collect();
        let expected: Vec<_> = [0, 0, 0, 1, 1, 1].map(|index: usize| Some(ids[index].to_owned())).into();
        assert_eq!(joined, expected);
        assert!(
            matches!(&read[0].record, LogRecord::NginxError { errno: Some(110), message, .. } if message == "upstream timed out"),
            "{:?}",
            read[0]
        );
    }

    #[test]
    fn what_the_agent_says_is_no_evidence() {
        let line = LogLine { at: None, text: "gateway-agent: 502 connect() failed".into() };
        assert!(read(GatewayKind::Nginx, &[line]).is_empty());
    }
}
