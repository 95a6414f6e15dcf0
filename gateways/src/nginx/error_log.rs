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
    /// Reads one line of nginx's error log.
    pub fn parse(line: &str) -> Option<Self> {
        let _ = line;
        None
    }
}
