//! The gateway's log of a phase, each line read and joined to the request that it is about.

use std::collections::BTreeMap;

use gateways::GatewayKind;
use gateways::nginx::NginxError;
use jiff::{Span, Timestamp};
use uuid::Uuid;

use crate::kubernetes::logs::LogLine;
use crate::signature::{GatewayLine, LogRecord};

/// nginx writes a request's error line and its access line at the same moment, but through two pipes.
const JOIN_WITHIN_MILLISECONDS: i64 = 2000;

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

/// An error line of nginx carries no request id, but the request line and the upstream address: it belongs to the access line
/// nearest in time that has both, a failed try at that address, and room for one more error.
fn join_nginx_errors(parsed: &[(&LogLine, Option<gateways::LogRecord>)]) -> BTreeMap<usize, Uuid> {
    struct Access<'a> {
        at: Option<Timestamp>,
        id: Uuid,
        request: &'a str,
        upstreams: Vec<&'a str>,
    }
    let mut accesses: Vec<Access<'_>> = parsed
        .iter()
        .filter_map(|(line, record)| match record {
            Some(gateways::LogRecord::NginxAccess(access)) => Some(Access {
                at: line.at,
                id: access.request_id.as_deref()?.parse().ok()?,
                request: &access.request,
                upstreams: access.attempts.iter().map(|attempt| attempt.address.as_str()).collect(),
            }),
            _ => None,
        })
        .collect();
    let mut joined = BTreeMap::new();
    for (index, (line, record)) in parsed.iter().enumerate() {
        let Some(gateways::LogRecord::NginxError(error)) = record else { continue };
        let (Some(request), Some(at)) = (&error.request, line.at) else { continue };
        let upstream = upstream_address(error);
        let distance = |access: &Access<'_>| access.at.map(|other| other.duration_since(at).as_millis().unsigned_abs());
        let nearest = accesses
            .iter_mut()
            .filter(|access| access.request == *request)
            .filter(|access| upstream.is_none_or(|upstream| access.upstreams.contains(&upstream)))
            .filter(|access| distance(access).is_some_and(|distance| distance <= u128::from(JOIN_WITHIN_MILLISECONDS.unsigned_abs())))
            .min_by_key(|access| distance(access));
        if let Some(access) = nearest {
            if let Some(upstream) = upstream
                && let Some(used) = access.upstreams.iter().position(|candidate| *candidate == upstream)
            {
                // Each try at an address explains one error line.
                access.upstreams.remove(used);
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
    start.checked_sub(Span::new().milliseconds(5)).unwrap_or(start)
}
