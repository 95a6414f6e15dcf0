//! nginx's error log, line by line.

use serde::Serialize;

/// nginx's log levels (ngx_log.h), the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

/// An operating system error as nginx logs it: `(111: Connection refused)`. Compared by number or name, never by libc's wording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Errno {
    pub number: i32,
    /// Symbolic name, e.g. `ECONNREFUSED`.
    pub name: String,
}

/// What an error line says, told apart by nginx's own message text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NginxErrorKind {
    /// `connect() failed`
    ConnectFailed,
    /// `upstream timed out`
    UpstreamTimedOut,
    /// `upstream prematurely closed connection`
    UpstreamPrematurelyClosed,
    /// `recv() failed` or `readv() failed`
    ReceiveFailed,
    /// `send() failed`, `writev() failed` or `sendfile() failed`
    SendFailed,
    /// `no live upstreams`
    NoLiveUpstreams,
    /// `upstream sent invalid header`, `… no valid HTTP/1.0 header`, duplicate or conflicting length headers
    UpstreamInvalidHeader,
    /// `upstream sent too big header`
    UpstreamHeaderTooBig,
    /// `upstream sent invalid chunked response` or `… more data than specified`
    UpstreamInvalidBody,
    /// `SSL_do_handshake() failed` and `peer closed connection in SSL handshake`
    TlsHandshakeFailed,
    /// `upstream SSL certificate verify error` and `… does not match`
    TlsCertificateRejected,
    /// `SSL_read() failed` and its like behind the handshake
    TlsFailed,
    /// `could not be resolved`, `host not found`
    NameNotResolved,
    /// `client intended to send too large body`
    ClientBodyTooLarge,
    /// Any other line (start, reload and exit notices among them).
    Other,
}

/// One line of nginx's error log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct NginxError {
    /// Local time as logged: `2026/11/21 04:10:11`.
    pub time: String,
    pub severity: Severity,
    pub pid: u32,
    /// nginx's number of the client connection (`*17`).
    pub connection: Option<u64>,
    pub kind: NginxErrorKind,
    /// The message up to `while`, errno included.
    pub message: String,
    pub errno: Option<Errno>,
    /// What nginx was doing, e.g. `connecting to upstream`.
    #[serde(rename = "while")]
    pub activity: Option<String>,
    pub client: Option<String>,
    pub server: Option<String>,
    pub request: Option<String>,
    pub upstream: Option<String>,
    pub host: Option<String>,
}

impl NginxError {
    /// Reads one line of nginx's error log: `time [level] pid#tid: *connection message while activity, client: …, server: …, …`
    /// (ngx_log_error_core, ngx_http_log_error).
    pub fn parse(line: &str) -> Option<Self> {
        let time = line.get(..19).filter(|time| is_time(time))?;
        let (severity, rest) = line.get(19..)?.strip_prefix(" [")?.split_once("] ")?;
        let severity = Severity::from_name(severity)?;
        let (process, rest) = rest.split_once(": ")?;
        let pid = process.split_once('#')?.0.parse().ok()?;
        let (connection, rest) = match rest.strip_prefix('*').and_then(|rest| rest.split_once(' ')) {
            Some((number, rest)) => (Some(number.parse().ok()?), rest),
            None => (None, rest),
        };
        let (message, mut rest) = split_context(rest);
        let (message, activity) = match message.rsplit_once(" while ") {
            Some((message, activity)) => (message, Some(activity.to_owned())),
            None => (message, None),
        };
        let mut fields: [(&str, Option<String>); 5] =
            [("client", None), ("server", None), ("request", None), ("upstream", None), ("host", None)];
        while let Some((name, behind)) = rest.split_once(": ") {
            let (value, behind) = context_value(behind);
            if let Some(field) = fields.iter_mut().find(|field| field.0 == name) {
                field.1 = Some(value.to_owned()).filter(|value| !value.is_empty());
            }
            rest = behind;
        }
        let [(_, client), (_, server), (_, request), (_, upstream), (_, host)] = fields;
        Some(Self {
            time: time.to_owned(),
            severity,
            pid,
            connection,
            kind: NginxErrorKind::of(message),
            message: message.to_owned(),
            errno: Errno::find(message),
            activity,
            client,
            server,
            request,
            upstream,
            host,
        })
    }
}

fn is_time(text: &str) -> bool {
    text.bytes().zip(*b"dddd/dd/dd dd:dd:dd").all(|(byte, pattern)| if pattern == b'd' { byte.is_ascii_digit() } else { byte == pattern })
}

/// The message, and the fields behind it.
fn split_context(text: &str) -> (&str, &str) {
    match text.find(", client: ") {
        Some(at) => (&text[..at], &text[at + 2..]),
        None => (text, ""),
    }
}

/// One value, quoted or not, and what comes behind it and a comma.
fn context_value(text: &str) -> (&str, &str) {
    let (value, rest) = match text.strip_prefix('"').and_then(|inside| inside.split_once('"')) {
        Some((value, rest)) => (value, rest),
        None => text.find(", ").map_or((text, ""), |at| text.split_at(at)),
    };
    (value, rest.strip_prefix(", ").unwrap_or(rest))
}

impl Severity {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "emerg" => Self::Emerg,
            "alert" => Self::Alert,
            "crit" => Self::Crit,
            "error" => Self::Error,
            "warn" => Self::Warn,
            "notice" => Self::Notice,
            "info" => Self::Info,
            "debug" => Self::Debug,
            _ => return None,
        })
    }
}

impl Errno {
    /// The first `(number: text)` whose number is an error of the system. OpenSSL's errors look alike, but are not numbers:
    /// `(SSL: error:0A00010B:…)`.
    fn find(message: &str) -> Option<Self> {
        message.split('(').skip(1).find_map(|part| {
            let number: i32 = part.split_once(':')?.0.parse().ok()?;
            let name = match nix::errno::Errno::from_raw(number) {
                nix::errno::Errno::UnknownErrno => return None,
                errno => format!("{errno:?}"),
            };
            Some(Self { number, name })
        })
    }
}

impl NginxErrorKind {
    /// nginx's own messages (src/http/ngx_http_upstream.c, src/event/ngx_event_openssl.c, src/os/unix/*), the more particular first.
    fn of(message: &str) -> Self {
        const KINDS: &[(&str, NginxErrorKind)] = &[
            ("upstream timed out", NginxErrorKind::UpstreamTimedOut),
            ("upstream prematurely closed connection", NginxErrorKind::UpstreamPrematurelyClosed),
            ("no live upstreams", NginxErrorKind::NoLiveUpstreams),
            ("upstream sent too big header", NginxErrorKind::UpstreamHeaderTooBig),
            ("upstream sent too large", NginxErrorKind::UpstreamHeaderTooBig),
            ("upstream sent invalid chunked response", NginxErrorKind::UpstreamInvalidBody),
            ("upstream sent more data than specified", NginxErrorKind::UpstreamInvalidBody),
            // no valid HTTP/1.0 header, invalid header, duplicate header line, "Content-Length" and "Transfer-Encoding" at once
            ("upstream sent", NginxErrorKind::UpstreamInvalidHeader),
            ("upstream SSL certificate", NginxErrorKind::TlsCertificateRejected),
            ("SSL_do_handshake() failed", NginxErrorKind::TlsHandshakeFailed),
            ("peer closed connection in SSL handshake", NginxErrorKind::TlsHandshakeFailed),
            ("SSL_", NginxErrorKind::TlsFailed),
            ("connect() failed", NginxErrorKind::ConnectFailed),
            ("connect() to", NginxErrorKind::ConnectFailed),
            ("recv() failed", NginxErrorKind::ReceiveFailed),
            ("readv() failed", NginxErrorKind::ReceiveFailed),
            ("send() failed", NginxErrorKind::SendFailed),
            ("writev() failed", NginxErrorKind::SendFailed),
            ("sendfile() failed", NginxErrorKind::SendFailed),
            ("could not be resolved", NginxErrorKind::NameNotResolved),
            ("host not found", NginxErrorKind::NameNotResolved),
            ("client intended to send too large body", NginxErrorKind::ClientBodyTooLarge),
        ];
        KINDS.iter().find(|(text, _)| message.contains(text)).map_or(Self::Other, |(_, kind)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by nginx 1.22.1.
    const REFUSED: &str = r#"2026/11/21 04:41:58 [error] 20353#20353: *2 connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: shop.test, request: "GET / HTTP/1.1", upstream: "http://127.0.0.1:36457/", host: "shop.test""#;

    #[test]
    fn a_refused_connection() {
        insta::assert_json_snapshot!(NginxError::parse(REFUSED).unwrap());
    }

    #[test]
    fn a_notice() {
        let notice = NginxError::parse("2026/11/21 04:41:58 [notice] 20352#20352: start worker process 20353").unwrap();
        assert_eq!((notice.severity, notice.kind, notice.pid), (Severity::Notice, NginxErrorKind::Other, 20352));
        assert_eq!((notice.connection, notice.errno, notice.activity), (None, None, None));
    }

    #[test]
    fn libc_wording_does_not_matter() {
        let other = REFUSED.replace("Connection refused", "Verbindungsaufbau abgelehnt");
        assert_eq!(NginxError::parse(&other).unwrap().errno, Some(Errno { number: 111, name: "ECONNREFUSED".to_owned() }));
    }

    #[test]
    fn other_lines_are_no_records() {
        for line in ["", "2026/11/21", "nginx: [emerg] x", "2026/11/21 04:41:58 [loud] 1#1: x", &REFUSED[1..]] {
            assert_eq!(NginxError::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "\\PC{0,80}", cut in 0usize..240, extra in "[ \":,*#(é]{0,5}") {
            let _ = NginxError::parse(&line);
            let cut = cut.min(REFUSED.len());
            let _ = NginxError::parse(&format!("{}{extra}{}", &REFUSED[..cut], &REFUSED[cut..]));
        }
    }
}
