//! The vocabulary of Traefik's two logs, and which cause belongs to which request.

use super::{TraefikAccess, TraefikMessage};
use crate::log::{Fields, Form, Key, LineKind, LogLine, LogRecord, ReadLine, UnderWay};

pub(super) const VOCABULARY: &[LineKind] = &[
    LineKind { name: "traefik", keys: &[Key { name: "error", form: Form::Text, meaning: "Traefik: error of the debug line." }] },
    LineKind { name: "traefik-access", keys: &[Key::STATUS] },
];

enum Line {
    Access(TraefikAccess),
    Message(TraefikMessage),
}

/// Traefik tells the cause of a failed request in a line of its own, which says nothing of the request but the status that it will get,
/// and for some causes the server (`dial tcp 10.244.1.2:8080: …`). The request is one that was under way at that moment, got that status
/// and was sent to that server. Where several fit, the one that ended first after the line: Traefik writes both in one go.
pub(super) fn read(lines: &[LogLine<'_>]) -> Vec<Option<ReadLine>> {
    let parsed: Vec<Option<Line>> = lines
        .iter()
        .map(|line| TraefikAccess::parse(line.text).map(Line::Access).or_else(|| TraefikMessage::parse(line.text).map(Line::Message)))
        .collect();
    let mut requests = UnderWay::of(lines.iter().zip(&parsed).filter_map(|(line, parsed)| match parsed {
        Some(Line::Access(access)) => {
            let told = Request { status: access.status, server: access.server_address.clone() };
            Some((line, access.duration?, access.request_id.clone()?, told))
        }
        _ => None,
    }));
    let mut read = Vec::new();
    for (line, parsed) in lines.iter().zip(parsed) {
        read.push(parsed.map(|parsed| match parsed {
            Line::Access(access) => ReadLine { record: access_record(&access), request_id: access.request_id },
            Line::Message(message) => {
                // One cause to a request: without retries there is no second.
                let request_id = requests.take(line, |request| request.failed_by(&message));
                ReadLine { record: message_record(message), request_id }
            }
        }));
    }
    read
}

struct Request {
    status: u16,
    server: Option<String>,
}

impl Request {
    fn failed_by(&self, message: &TraefikMessage) -> bool {
        let Some(error) = &message.error else { return false };
        let dialled = error.strip_prefix("dial tcp ").and_then(|rest| rest.split_once(": ")).map(|(address, _)| address);
        let server = self.server.as_deref();
        message.message.split(' ').next().and_then(|status| status.parse().ok()) == Some(self.status)
            && dialled.is_none_or(|address| server.is_none_or(|server| server == address))
    }
}

fn access_record(access: &TraefikAccess) -> LogRecord {
    LogRecord {
        kind: "traefik-access".to_owned(),
        of_request: true,
        // Its access log says the same of an answer of its own and of one from behind (OriginStatus).
        answered: None,
        mark: None,
        summary: None,
        fields: Fields::default().with_number("status", Some(access.status)),
    }
}

fn message_record(message: TraefikMessage) -> LogRecord {
    LogRecord {
        kind: "traefik".to_owned(),
        of_request: false,
        answered: None,
        mark: None,
        summary: message.error.clone(),
        fields: Fields::default().with_text("error", message.error),
    }
}

pub(super) fn mark(fields: &Fields) -> Option<String> {
    fields.text("error").map(str::to_owned)
}

/// Addresses differ from run to run.
pub(super) fn mark_of_seen(fields: &Fields) -> Option<String> {
    let is_address = |word: &&str| word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.');
    Some(mark(fields)?.split(' ').filter(|word| !is_address(word)).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two requests under way at the same time, sent to two servers, and a later one without a line of its own.
    #[test]
    fn causes_are_joined_by_time_status_and_server() {
        let ids = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"];
        let cause = |time: &'static str, status: &str, error: &str| {
            let text = format!(
                r#"{{"level":"debug","error":"{error}","time":"2026-11-21T04:00:01Z","caller":"proxy.go:199","message":"{status}"}}"#
            );
            (time, text)
        };
        let access = |time: &'static str, took_ms: u64, status: u16, server: &str, id: &str| {
            let text = format!(
                r#"{{"DownstreamStatus":{status},"Duration":{},"RequestMethod":"GET","ServiceAddr":"{server}","level":"info","msg":"","request_X-Request-Id":"{id}"}}"#,
                took_ms * 1_000_000
            );
            (time, text)
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
        let lines: Vec<LogLine> =
            lines.iter().map(|(time, text)| LogLine { text, at: Some(format!("2026-11-21T04:00:0{time}Z").parse().unwrap()) }).collect();
        let read: Vec<ReadLine> = read(&lines).into_iter().flatten().collect();
        let joined: Vec<_> = read.iter().map(|line| line.request_id.clone()).collect();
        let expected = [Some(1), Some(0), Some(1), Some(0), None, Some(2), Some(2), None];
        assert_eq!(joined, expected.map(|index: Option<usize>| index.map(|index| ids[index].to_owned())));
        assert_eq!(read.iter().filter(|line| line.record.of_request).count(), 3, "a cause is no line of the access log");
        assert_eq!(mark_of_seen(&read[0].record.fields).as_deref(), Some("dial tcp i/o timeout"));
    }
}
