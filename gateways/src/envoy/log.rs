//! The vocabulary of Envoy's access log.

use super::EnvoyAccess;
use crate::log::{Fields, Form, Key, LineKind, LogLine, LogRecord, ReadLine};

pub(super) const VOCABULARY: &[LineKind] = &[LineKind {
    name: "envoy",
    keys: &[
        Key { name: "response-flags", form: Form::Set, meaning: "Envoy: short forms, such as UF. All of them, no other." },
        Key { name: "response-code-details", form: Form::Text, meaning: "Envoy: `%RESPONSE_CODE_DETAILS%`." },
        Key { name: "transport-failure", form: Form::Text, meaning: "Envoy: `%UPSTREAM_TRANSPORT_FAILURE_REASON%`." },
        Key::STATUS,
    ],
}];

pub(super) fn read(line: &LogLine<'_>) -> Option<ReadLine> {
    let access = EnvoyAccess::parse(line.text)?;
    let flags: Vec<String> = access.response_flags.iter().map(|flag| flag.short().to_owned()).collect();
    let (status, details) = (access.response_code, access.response_code_details.unwrap_or_default());
    let failure = access.upstream_transport_failure_reason;
    let said = failure.as_ref().map_or_else(String::new, |failure| format!(" {failure}"));
    let record = LogRecord {
        kind: "envoy".to_owned(),
        of_request: true,
        answered: (details == "via_upstream").then_some(status),
        mark: None,
        summary: Some(format!("{status} {} {details}{said}", flags.join(","))),
        fields: Fields::default()
            .with_number("status", Some(status))
            .with_words("response-flags", flags)
            .with_text("response-code-details", Some(details))
            .with_text("transport-failure", failure),
    };
    Some(ReadLine { record, request_id: access.request_id })
}

/// Flags, and of the details what they say more than the flags: `UF upstream_reset_before_response_started{connection_timeout}`.
pub(super) fn mark(fields: &Fields) -> Option<String> {
    let details = fields.text("response-code-details");
    let Some(flags) = fields.words("response-flags") else { return details.map(str::to_owned) };
    if flags.is_empty() {
        return None;
    }
    let reason = details.and_then(|details| details.split_once('{')).map(|(_, reason)| reason.trim_end_matches('}'));
    Some(match reason {
        Some(reason) => format!("{} ({reason})", flags.join(",")),
        None => flags.join(","),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("UF", "upstream_reset_before_response_started{connection_timeout}", Some("UF (connection_timeout)"), None)]
    #[case("UT", "response_timeout", Some("UT"), None)]
    #[case("-", "via_upstream", None, Some(503))]
    fn marks_and_answers(#[case] flags: &str, #[case] details: &str, #[case] expected: Option<&str>, #[case] answered: Option<u16>) {
        let text = format!(
            "{{\"start_time\":\"2026-11-21T04:44:15.016Z\",\"response_code\":503,\"response_flags\":\"{flags}\",\
             \"response_code_details\":\"{details}\",\"request_id\":\"one\"}}"
        );
        let line = read(&LogLine { text: &text, at: None }).unwrap();
        assert_eq!((mark(&line.record.fields).as_deref(), line.record.answered), (expected, answered));
        assert_eq!(line.request_id.as_deref(), Some("one"));
    }
}
