//! nginx's two logs: their vocabulary, and which error belongs to which request.

use super::{NginxAccess, NginxError};
use crate::log::{Fields, Form, Key, LineKind, LogLine, LogRecord, ReadLine, UnderWay};

pub(crate) const VOCABULARY: &[LineKind] = &[
    LineKind {
        name: "nginx-error",
        keys: &[
            Key { name: "errno", form: Form::Errno, meaning: "nginx: name or number of the errno, such as ECONNREFUSED." },
            Key { name: "while", form: Form::Text, meaning: "nginx: what it was doing, such as `connecting to upstream`." },
            Key { name: "message", form: Form::Text, meaning: "nginx: the message before the errno and ` while `." },
            Key { name: "level", form: Form::Word, meaning: "nginx: `error`, `warn`, `crit`…" },
        ],
    },
    LineKind {
        name: "nginx-access",
        keys: &[
            Key {
                name: "upstream-status",
                form: Form::Sequence,
                meaning: "nginx access log: status of each try, `-` where there was none.",
            },
            Key::STATUS,
        ],
    },
];

/// Where ingress-nginx sends what no Ingress asks for (`defUpstreamName` in internal/ingress/controller/controller.go).
pub(crate) const DEFAULT_BACKEND: &str = "upstream-default-backend";

enum Line {
    Access(NginxAccess),
    Error(NginxError),
}

/// An error line of nginx carries no request id, but the number of the client's connection; of the requests on that connection it
/// belongs to the one that was under way at that moment.
pub(crate) fn read(lines: &[LogLine<'_>]) -> Vec<Option<ReadLine>> {
    let parsed: Vec<Option<Line>> = lines
        .iter()
        .map(|line| NginxAccess::parse(line.text).map(Line::Access).or_else(|| NginxError::parse(line.text).map(Line::Error)))
        .collect();
    let requests = UnderWay::of(lines.iter().zip(&parsed).filter_map(|(line, parsed)| match parsed {
        Some(Line::Access(access)) => Some((line, access.request_time, access.request_id.clone()?, access.connection?)),
        _ => None,
    }));
    let of = |error: &NginxError, line: &LogLine| requests.at(line, |connection| error.connection == Some(*connection));
    let read = |(line, parsed): (&LogLine, Option<Line>)| match parsed? {
        Line::Access(access) => Some(ReadLine { request_id: access.request_id.clone(), record: access_record(&access) }),
        Line::Error(error) => Some(ReadLine { request_id: of(&error, line), record: error_record(&error) }),
    };
    lines.iter().zip(parsed).map(read).collect()
}

fn access_record(access: &NginxAccess) -> LogRecord {
    let tries: Vec<String> =
        access.attempts.iter().map(|attempt| attempt.status.map_or_else(|| "-".to_owned(), |status| status.to_string())).collect();
    LogRecord {
        kind: "nginx-access".to_owned(),
        of_request: true,
        // For a try that failed nginx puts its own 502 or 504 into $upstream_status as well, but no time into $upstream_header_time.
        // ingress-nginx' default backend is a server of the same nginx.
        answered: access
            .attempts
            .last()
            .filter(|attempt| attempt.header_time.is_some() && access.upstream_name.as_deref() != Some(DEFAULT_BACKEND))
            .and_then(|attempt| attempt.status),
        mark: None,
        summary: Some(format!("status {}, upstream status {}", access.status, tries.join(", "))),
        fields: Fields::default().with_number("status", Some(access.status)).with_words("upstream-status", tries),
    }
}

fn error_record(error: &NginxError) -> LogRecord {
    let message = without_errno(error);
    let errno = error.errno.as_ref();
    let summary = format!(
        "{message}{} while {}",
        errno.map_or_else(String::new, |errno| format!(" ({})", errno.name)),
        error.activity.as_deref().unwrap_or("-")
    );
    LogRecord {
        kind: "nginx-error".to_owned(),
        of_request: false,
        answered: None,
        mark: None,
        summary: Some(summary),
        fields: Fields::default()
            .with_number("errno", errno.map(|errno| errno.number))
            .with_text("while", error.activity.clone())
            .with_text("message", Some(message))
            .with_text("level", Some(format!("{:?}", error.severity).to_lowercase())),
    }
}

/// The wording of an errno is libc's and differs between machines.
fn without_errno(error: &NginxError) -> String {
    let message = &error.message;
    let Some(start) = error.errno.as_ref().and_then(|errno| message.find(&format!(" ({}: ", errno.number))) else {
        return message.clone();
    };
    let end = message[start..].find(')').map_or(message.len(), |length| start + length + 1);
    format!("{}{}", &message[..start], &message[end..])
}

/// Below `error` nginx tells of its own life: workers, signals, reloads.
pub(crate) fn mark_of_seen(fields: &Fields) -> Option<String> {
    let level = fields.text("level")?;
    ["error", "crit", "alert", "emerg"].contains(&level).then(|| mark(fields)).flatten()
}

pub(crate) fn mark(fields: &Fields) -> Option<String> {
    // Behind it stands OpenSSL's error stack.
    let message = fields.text("message").map(|message| message.split_once(" (SSL:").map_or(message, |(message, _)| message).to_owned());
    let what = fields.errno("errno").or(message);
    let doing = fields.text("while").map(|doing| format!("while {doing}"));
    let parts: Vec<String> = [what, doing].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Two requests at the same time, each tried at two servers that time out, and a later one on the first one's connection.
    #[test]
    fn errors_are_joined_to_the_request_that_was_under_way() {
        let ids = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"];
        let error = |time: &'static str, connection: u32| {
            (
                time,
                format!(
                    "2026/11/21 04:00:00 [error] 20#20: *{connection} upstream timed out (110: Connection timed out) while reading response \
                     header from upstream, client: 10.244.0.2, server: shop.test, request: \"GET / HTTP/1.1\", upstream: \
                     \"http://10.244.1.2:8080/\", host: \"shop.test\""
                ),
            )
        };
        let access = |time: &'static str, took: &str, connection: u32, id: &str| {
            (
                time,
                format!(
                    "10.244.0.2 - - [21/Nov/2026:04:00:00 +0000] \"GET / HTTP/1.1\" 504 160 \"-\" \"gatelab-probe\" 120 {took} \
                     [shop-shop-http] [] 10.244.1.2:8080 0 1.000 504 {id} \"shop.test\" \"0.001\" \"-\" \"{connection}\""
                ),
            )
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
        let lines: Vec<LogLine> =
            lines.iter().map(|(time, text)| LogLine { text, at: Some(format!("2026-11-21T04:00:0{time}Z").parse().unwrap()) }).collect();
        let read: Vec<ReadLine> = read(&lines).into_iter().flatten().collect();
        let joined: Vec<_> = read.iter().map(|line| line.request_id.clone()).collect();
        assert_eq!(joined, [0, 1, 0, 0, 1, 1, 2, 2].map(|index: usize| Some(ids[index].to_owned())));
        let first = &read[0].record;
        assert_eq!((first.fields.number("errno"), first.fields.text("message")), (Some(110), Some("upstream timed out")));
        assert_eq!(read.iter().filter(|line| line.record.of_request).count(), 3);
    }

    #[rstest]
    #[case("connect() failed", Some(111), "error", Some("ECONNREFUSED while connecting to upstream"))]
    #[case("no live upstreams", None, "error", Some("no live upstreams while connecting to upstream"))]
    #[case(
        "SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number)",
        None,
        "crit",
        Some("SSL_do_handshake() failed while connecting to upstream")
    )]
    #[case("exit", None, "notice", None)]
    fn marks(#[case] message: &str, #[case] errno: Option<i32>, #[case] level: &str, #[case] expected: Option<&str>) {
        let fields = Fields::default()
            .with_text("message", Some(message))
            .with_number("errno", errno)
            .with_text("level", Some(level))
            .with_text("while", Some("connecting to upstream"));
        assert_eq!(mark_of_seen(&fields).as_deref(), expected);
    }

    /// nginx writes its own 502 into $upstream_status; that no header was read from the upstream tells them apart.
    #[rstest]
    #[case("shop-shop-http", "0.001", Some(502))]
    #[case("shop-shop-http", "-", None)]
    #[case(DEFAULT_BACKEND, "0.001", None)]
    fn an_answer_from_behind_is_told_from_nginx_own(#[case] upstream: &str, #[case] header_time: &str, #[case] answered: Option<u16>) {
        let text = format!(
            "10.244.0.2 - - [21/Nov/2026:04:00:00 +0000] \"GET / HTTP/1.1\" 502 160 \"-\" \"-\" 120 0.001 [{upstream}] [] \
             10.244.1.2:8080 0 0.001 502 id \"shop.test\" \"0.001\" \"{header_time}\" \"7\""
        );
        let line = read(&[LogLine { text: &text, at: None }]).remove(0).unwrap();
        assert_eq!(line.record.answered, answered);
    }
}
