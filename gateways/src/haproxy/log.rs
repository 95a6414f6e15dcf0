//! The vocabulary of HAProxy's HTTP log.

use super::HaproxyAccess;
use crate::log::{Fields, Form, Key, LineKind, LogLine, LogRecord, ReadLine};

pub(super) const VOCABULARY: &[LineKind] = &[LineKind {
    name: "haproxy",
    keys: &[Key { name: "termination-state", form: Form::Text, meaning: "HAProxy: such as `SC--`." }, Key::STATUS],
}];

pub(super) fn read(line: &LogLine<'_>) -> Option<ReadLine> {
    let access = HaproxyAccess::parse(line.text)?;
    let state = access.termination_state;
    // The second letter is the phase in which the session ended: D, L and - come behind the server's header, all others before it
    // (HAProxy's Configuration Manual, 8.5).
    let behind = access.server.is_some() && matches!(state.as_bytes().get(1), Some(b'D' | b'L' | b'-'));
    let record = LogRecord {
        kind: "haproxy".to_owned(),
        of_request: true,
        answered: access.status.filter(|_| behind),
        mark: None,
        summary: Some(format!("{} {state}", access.status.map_or_else(|| "-1".to_owned(), |status| status.to_string()))),
        fields: Fields::default().with_number("status", access.status).with_text("termination-state", Some(state)),
    };
    Some(ReadLine { record, request_id: access.request_id })
}

pub(super) fn mark(fields: &Fields) -> Option<String> {
    fields.text("termination-state").map(str::to_owned)
}

/// `--`: the session ended as it should (HAProxy's Configuration Manual, 8.5).
pub(super) fn mark_of_seen(fields: &Fields) -> Option<String> {
    mark(fields).filter(|state| !state.starts_with("--"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("s/srv001", "503", "SC--", Some("SC--"), None)]
    #[case("s/srv001", "200", "----", None, Some(200))]
    #[case("s/srv001", "200", "SD--", Some("SD--"), Some(200))]
    #[case("s/<NOSRV>", "503", "----", None, None)]
    #[case("s/srv001", "-1", "CD--", Some("CD--"), None)]
    fn marks_and_answers(
        #[case] place: &str,
        #[case] status: &str,
        #[case] state: &str,
        #[case] expected: Option<&str>,
        #[case] answered: Option<u16>,
    ) {
        let text = format!(
            "127.0.0.1:57658 [21/Nov/2026:05:40:52.751] http {place} 0/0/0/-1/201 {status} 198 - - {state} 1/1/0/0/0 0/0 \
             \"GET / HTTP/1.1\" \"one\" \"shop.test\" 127.0.0.1:37569 \"Success\" \"\""
        );
        let line = read(&LogLine { text: &text, at: None }).unwrap();
        assert_eq!((mark_of_seen(&line.record.fields).as_deref(), line.record.answered), (expected, answered));
        assert_eq!(line.request_id.as_deref(), Some("one"));
    }
}
