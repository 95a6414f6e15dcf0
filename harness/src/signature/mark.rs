//! A log line in the few words that an engineer remembers: `ECONNREFUSED while connecting to upstream`, `UF`, `SC--`.

use super::observation::LogRecord;
use crate::scenario::Errno;
use crate::scenario::expect::LogExpectation;
use crate::scenario::text::TextMatch;

/// Mark of a line that was seen; `None` for lines that say nothing beyond a status.
pub fn of_record(record: &LogRecord) -> Option<String> {
    match record {
        // Below `error` nginx tells of its own life: workers, signals, reloads.
        LogRecord::NginxError { level, .. } if !["error", "crit", "alert", "emerg"].contains(&level.as_str()) => None,
        LogRecord::NginxError { message, errno, doing, .. } => {
            // Behind it stands OpenSSL's error stack.
            let message = message.split_once(" (SSL:").map_or(message.as_str(), |(message, _)| message);
            let what = errno.map_or_else(|| message.to_owned(), |errno| Errno(errno).name());
            Some(doing.as_ref().map_or_else(|| what.clone(), |doing| format!("{what} while {doing}")))
        }
        LogRecord::Envoy { response_flags, response_code_details, .. } => {
            (!response_flags.is_empty()).then(|| envoy(response_flags, Some(response_code_details)))
        }
        // `--`: the session ended as it should (HAProxy's Configuration Manual, 8.5).
        LogRecord::Haproxy { termination_state, .. } => (!termination_state.starts_with("--")).then(|| termination_state.clone()),
        LogRecord::Traefik { error, .. } => error.as_ref().map(|error| without_addresses(error)),
        LogRecord::NginxAccess { .. } | LogRecord::Other => None,
    }
}

/// Mark of a line that a scenario expects; `None` where it asks for nothing beyond a status.
pub fn of_expectation(expected: &LogExpectation) -> Option<String> {
    let text = |wanted: &Option<TextMatch>| wanted.as_ref().map(plain);
    if expected.errno.is_some() || expected.message.is_some() || expected.r#while.is_some() {
        let what = expected.errno.map(Errno::name).or_else(|| text(&expected.message));
        let parts = [what, text(&expected.r#while).map(|doing| format!("while {doing}"))];
        return Some(parts.into_iter().flatten().collect::<Vec<_>>().join(" "));
    }
    if let Some(flags) = &expected.response_flags {
        let details = text(&expected.response_code_details);
        return (!flags.is_empty()).then(|| envoy(flags, details.as_deref()));
    }
    text(&expected.response_code_details).or_else(|| text(&expected.termination_state)).or_else(|| text(&expected.error))
}

/// Details repeat the flags, but for `via_upstream` they say more: `UF upstream_reset_before_response_started{connection_timeout}`.
fn envoy(flags: &[String], details: Option<&str>) -> String {
    let reason = details.and_then(|details| details.split_once('{')).map(|(_, reason)| reason.trim_end_matches('}'));
    match reason {
        Some(reason) => format!("{} ({reason})", flags.join(",")),
        None => flags.join(","),
    }
}

fn plain(wanted: &TextMatch) -> String {
    let rules = &wanted.0;
    let said = [&rules.equals, &rules.contains, &rules.prefix, &rules.like].into_iter().flatten().next();
    said.map_or_else(String::new, |text| text.trim_matches('*').trim().to_owned())
}

/// Addresses differ from run to run.
fn without_addresses(text: &str) -> String {
    let is_address = |word: &str| word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.');
    text.split(' ').filter(|word| !is_address(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn nginx(message: &str, errno: Option<i32>) -> LogRecord {
        let doing = Some("connecting to upstream".to_owned());
        LogRecord::NginxError { level: "error".to_owned(), message: message.to_owned(), errno, doing, upstream: None }
    }

    fn envoy_line(flags: &[&str], details: &str) -> LogRecord {
        LogRecord::Envoy {
            status: 503,
            response_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            response_code_details: details.to_owned(),
            transport_failure: None,
            upstream_host: None,
            attempts: None,
        }
    }

    #[rstest]
    #[case(nginx("connect() failed", Some(111)), Some("ECONNREFUSED while connecting to upstream"))]
    #[case(nginx("no live upstreams", None), Some("no live upstreams while connecting to upstream"))]
    #[case(
        nginx("SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number)", None),
        Some("SSL_do_handshake() failed while connecting to upstream")
    )]
    #[case(LogRecord::NginxError { level: "notice".into(), message: "exit".into(), errno: None, doing: None, upstream: None }, None)]
    #[case(envoy_line(&["UF"], "upstream_reset_before_response_started{connection_timeout}"), Some("UF (connection_timeout)"))]
    #[case(envoy_line(&["UT"], "response_timeout"), Some("UT"))]
    #[case(envoy_line(&[], "via_upstream"), None)]
    #[case(LogRecord::Traefik { status: None, error: Some("dial tcp 10.244.1.4:8081: connect: connection refused".into()) },
        Some("dial tcp connect: connection refused"))]
    #[case(LogRecord::Haproxy { status: 503, termination_state: "SC--".into(), server: None, retries: None }, Some("SC--"))]
    #[case(LogRecord::Haproxy { status: 200, termination_state: "----".into(), server: None, retries: None }, None)]
    fn marks_of_lines(#[case] record: LogRecord, #[case] mark: Option<&str>) {
        assert_eq!(of_record(&record).as_deref(), mark);
    }
}
