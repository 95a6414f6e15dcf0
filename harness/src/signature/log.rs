//! The gateway's own lines against the lines that a scenario expects.

use std::collections::BTreeSet;

use super::client::of;
use super::expectation::{Item, Items};
use super::observation::{GatewayLine, LogRecord, Observations};
use crate::scenario::expect::LogExpectation;
use crate::scenario::text::TextMatch;
use crate::scenario::{Bound, Errno};

/// Matches one expected line; `index` tells it from others of the same gateway.
pub fn evaluate(index: usize, expected: &LogExpectation, observations: &Observations) -> Item {
    let mut items = Items::under(format!("log[{index}]"));
    let matching: Vec<&GatewayLine> = observations.gateway_log.iter().filter(|line| matches(expected, &line.record)).collect();
    let bound = expected.count.unwrap_or(Bound::SOME);
    let wanted = describe(expected);
    match &expected.of {
        Some(probe) => {
            let sent: BTreeSet<_> = observations.requests.get(probe).into_iter().flatten().map(|record| record.request_id).collect();
            let named: BTreeSet<_> = matching.iter().filter_map(|line| line.request_id).filter(|id| sent.contains(id)).collect();
            let observed = format!("such lines about {} requests; {}", of(named.len(), sent.len()), nearest(observations));
            items.add("", bound.holds(named.len(), sent.len()), format!("{wanted}, for {bound} of the requests of {probe}"), observed);
        }
        None => {
            let observed = match matching.first() {
                Some(first) => format!("{} such lines, the first: {}", matching.len(), first.text),
                None => format!("no such line; {}", nearest(observations)),
            };
            items.add("", bound.holds(matching.len(), observations.gateway_log.len()), format!("{wanted}, {bound} lines"), observed);
        }
    }
    items.into_vec().remove(0)
}

/// Whether one line has everything that is asked for.
pub fn matches(expected: &LogExpectation, record: &LogRecord) -> bool {
    let text =
        |wanted: &Option<TextMatch>, seen: Option<&str>| wanted.as_ref().is_none_or(|wanted| seen.is_some_and(|seen| wanted.matches(seen)));
    let status = |seen: Option<u16>| expected.status.is_none_or(|wanted| seen == Some(wanted));
    let nginx_error = expected.errno.is_some() || expected.r#while.is_some() || expected.message.is_some() || expected.level.is_some();
    let envoy = expected.response_flags.is_some() || expected.response_code_details.is_some() || expected.transport_failure.is_some();
    match record {
        LogRecord::NginxError { level, message, errno, doing, .. } => {
            // A line of the error log has no status, so that one that is asked for nothing else never matches.
            nginx_error
                && !envoy
                && expected.status.is_none()
                && expected.upstream_status.is_none()
                && expected.errno.is_none_or(|wanted| *errno == Some(wanted.0))
                && expected.level.as_ref().is_none_or(|wanted| wanted == level)
                && text(&expected.message, Some(message))
                && text(&expected.r#while, doing.as_deref())
        }
        LogRecord::NginxAccess { status: seen, upstream_status, .. } => {
            let tries = || upstream_status.iter().map(|status| status.map_or_else(|| "-".to_owned(), |status| status.to_string()));
            !nginx_error
                && !envoy
                && (expected.status.is_some() || expected.upstream_status.is_some())
                && status(Some(*seen))
                && expected.upstream_status.as_ref().is_none_or(|wanted| wanted.iter().cloned().eq(tries()))
        }
        LogRecord::Envoy { status: seen, response_flags, response_code_details, transport_failure, .. } => {
            !nginx_error
                && (envoy || expected.status.is_some())
                && status(Some(*seen))
                && expected.response_flags.as_ref().is_none_or(|wanted| {
                    let sorted = |flags: &[String]| flags.iter().cloned().collect::<BTreeSet<_>>();
                    sorted(wanted) == sorted(response_flags)
                })
                && text(&expected.response_code_details, Some(response_code_details))
                && text(&expected.transport_failure, transport_failure.as_deref())
        }
        LogRecord::Haproxy { status: seen, termination_state, .. } => {
            !nginx_error && !envoy && status(u16::try_from(*seen).ok()) && text(&expected.termination_state, Some(termination_state))
        }
        LogRecord::Traefik { status: seen, error } => !nginx_error && !envoy && status(*seen) && text(&expected.error, error.as_deref()),
        LogRecord::Other => false,
    }
}

fn describe(expected: &LogExpectation) -> String {
    let text = |name: &str, wanted: &Option<TextMatch>| wanted.as_ref().map(|wanted| format!("{name} {wanted}"));
    let parts = [
        expected.errno.map(|errno: Errno| format!("errno {}", errno.name())),
        text("while", &expected.r#while),
        text("message", &expected.message),
        expected.level.as_ref().map(|level| format!("level {level}")),
        expected.upstream_status.as_ref().map(|tries| format!("upstream status {}", tries.join(", "))),
        expected
            .response_flags
            .as_ref()
            .map(|flags| format!("response flags {}", if flags.is_empty() { "-".to_owned() } else { flags.join(",") })),
        text("response code details", &expected.response_code_details),
        text("transport failure", &expected.transport_failure),
        text("termination state", &expected.termination_state),
        text("error", &expected.error),
        expected.status.map(|status| format!("status {status}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What there was instead: the different kinds of lines, as a person would look for them.
fn nearest(observations: &Observations) -> String {
    let kinds: BTreeSet<String> = observations
        .gateway_log
        .iter()
        .filter_map(|line| match &line.record {
            LogRecord::NginxError { message, errno, doing, .. } => {
                let errno = errno.map_or_else(String::new, |errno| format!(" ({})", Errno(errno).name()));
                Some(format!("`{message}{errno} while {}`", doing.as_deref().unwrap_or("-")))
            }
            LogRecord::NginxAccess { status, upstream_status, .. } => {
                let tries: Vec<String> =
                    upstream_status.iter().map(|status| status.map_or_else(|| "-".to_owned(), |status| status.to_string())).collect();
                Some(format!("`status {status}, upstream status {}`", tries.join(", ")))
            }
            LogRecord::Envoy { status, response_flags, response_code_details, transport_failure, .. } => {
                let failure = transport_failure.as_ref().map_or_else(String::new, |failure| format!(" {failure}"));
                Some(format!("`{status} {} {response_code_details}{failure}`", response_flags.join(",")))
            }
            LogRecord::Haproxy { status, termination_state, .. } => Some(format!("`{status} {termination_state}`")),
            LogRecord::Traefik { error, .. } => error.as_ref().map(|error| format!("`{error}`")),
            LogRecord::Other => None,
        })
        .collect();
    if kinds.is_empty() {
        return format!("the log holds {} lines and no record", observations.gateway_log.len());
    }
    let shown: Vec<String> = kinds.iter().take(4).cloned().collect();
    format!("there is {}{}", shown.join(" and "), if kinds.len() > 4 { " and more" } else { "" })
}
