//! HAProxy's HTTP log: `option httplog` word for word, extended at its end by what the lab needs.

use std::time::Duration;

use serde::Serialize;

use crate::log::{method_and_target, present};

/// The `log-format` that [`HaproxyAccess::parse`] reads. Up to the request line it is what `option httplog` stands for (HAProxy's
/// Configuration Manual, 8.2.3 "HTTP log format") without captured headers; behind it come request id, host, the server's address, and
/// what failed on the connection to the server.
pub const LOG_FORMAT: &str = concat!(
    "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %{+Q}r ",
    "%{+Q}[var(txn.request_id)] %{+Q}[var(txn.host)] %si:%sp %{+Q}[bc_err_str] %{+Q}[ssl_bc_err_str]"
);

/// One line of HAProxy's HTTP log. Times have a resolution of a millisecond.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HaproxyAccess {
    pub client: String,
    /// When the request's first byte came: `21/Nov/2026:04:10:11.123`.
    pub time: String,
    pub frontend: String,
    pub backend: String,
    /// `None` where no server was chosen (`<NOSRV>`, and the `<STATS>` of HAProxy's own services).
    pub server: Option<String>,
    /// `TR`: until the request's header was complete; `None` where it never was.
    pub request_time: Option<Duration>,
    /// `Tw`: waiting in queues.
    pub queue_time: Option<Duration>,
    /// `Tc`: until the connection to the server stood, retries included; `None` where it never did.
    pub connect_time: Option<Duration>,
    /// `Tr`: until the server's header was complete; `None` where it never was.
    pub response_time: Option<Duration>,
    /// `Ta`: from the request's first byte to the response's last.
    pub total_time: Option<Duration>,
    /// `None` where the client got no status at all (-1).
    pub status: Option<u16>,
    pub bytes_read: u64,
    /// Four letters: who ended the session, in which phase, and two about cookies, e.g. `SC--` (8.5 "Session state at disconnection").
    pub termination_state: String,
    /// Further attempts to connect.
    pub retries: u32,
    /// The last attempt went to another server (`+` before the number of retries).
    pub redispatched: bool,
    pub request: String,
    pub method: Option<String>,
    pub target: Option<String>,
    pub request_id: Option<String>,
    pub host: Option<String>,
    /// `address:port` of the server.
    pub server_address: Option<String>,
    /// HAProxy's words for what failed on the connection to the server, e.g. `Connection refused`.
    pub connection_error: Option<String>,
    /// OpenSSL's words for what failed in the handshake with the server, e.g. `wrong version number`.
    pub tls_error: Option<String>,
}

impl HaproxyAccess {
    /// Reads a line that was written with [`LOG_FORMAT`].
    pub fn parse(line: &str) -> Option<Self> {
        let (client, rest) = line.split_once(" [")?;
        let (time, rest) = rest.split_once("] ")?;
        let (frontend, rest) = rest.split_once(' ')?;
        let (place, rest) = rest.split_once(' ')?;
        let (backend, server) = place.split_once('/')?;
        let (timers, rest) = rest.split_once(' ')?;
        let (status, rest) = rest.split_once(' ')?;
        let (bytes_read, rest) = rest.split_once(' ')?;
        let (_request_cookie, rest) = rest.split_once(' ')?;
        let (_response_cookie, rest) = rest.split_once(' ')?;
        let (termination_state, rest) = rest.split_once(' ')?;
        let (connections, rest) = rest.split_once(' ')?;
        let (_queues, rest) = rest.split_once(' ')?;
        let (request, rest) = quoted(rest)?;
        let (request_id, rest) = quoted(rest)?;
        let (host, rest) = quoted(rest)?;
        let (server_address, rest) = rest.split_once(' ')?;
        let (connection_error, rest) = quoted(rest)?;
        let (tls_error, rest) = quoted(rest)?;
        if !rest.is_empty() || termination_state.len() != 4 {
            return None;
        }
        let timers: Vec<Option<Duration>> = timers.split('/').map(milliseconds).collect::<Option<_>>()?;
        let [request_time, queue_time, connect_time, response_time, total_time] = timers.try_into().ok()?;
        let retries = connections.rsplit('/').next()?;
        let (method, target) = method_and_target(request);
        Some(Self {
            client: client.to_owned(),
            time: time.to_owned(),
            // `~` marks a frontend that spoke TLS
            frontend: frontend.trim_end_matches('~').to_owned(),
            backend: backend.to_owned(),
            server: present(server).filter(|server| !server.starts_with('<')),
            request_time,
            queue_time,
            connect_time,
            response_time,
            total_time,
            status: if status == "-1" { None } else { Some(status.parse().ok()?) },
            bytes_read: bytes_read.trim_start_matches('+').parse().ok()?,
            termination_state: termination_state.to_owned(),
            retries: retries.trim_start_matches('+').parse().ok()?,
            redispatched: retries.starts_with('+'),
            request: request.to_owned(),
            method,
            target,
            request_id: present(request_id),
            host: present(host),
            server_address: present(server_address).filter(|address| !address.starts_with('-')),
            connection_error: present(connection_error).filter(|error| error != "Success"),
            tls_error: present(tls_error),
        })
    }
}

/// A quoted field and what comes behind it and a space. HAProxy writes quotes within as `#22` (8.6 "Non-printable characters").
fn quoted(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix("- ") {
        return Some(("", rest));
    }
    if text == "-" {
        return Some(("", ""));
    }
    let (field, rest) = text.strip_prefix('"')?.split_once('"')?;
    Some((field, rest.strip_prefix(' ').unwrap_or(rest)))
}

/// Milliseconds; -1 for what never happened. A `+` stands before the total of sessions that are logged before their end.
fn milliseconds(text: &str) -> Option<Option<Duration>> {
    match text {
        "-1" => Some(None),
        _ => Some(Some(Duration::from_millis(text.trim_start_matches('+').parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by HAProxy 2.6.12.
    const SILENT: &str = r#"127.0.0.1:57658 [21/Nov/2026:05:40:52.751] http shop-shop-80/srv001 0/0/0/-1/201 504 198 - - sH-- 1/1/0/0/0 0/0 "GET / HTTP/1.1" "silent" "shop.test" 127.0.0.1:37569 "Success" """#;
    const NO_SERVER: &str = r#"127.0.0.1:57654 [21/Nov/2026:05:40:52.537] http shop-shop-80/<NOSRV> 0/-1/-1/-1/0 503 217 - - SC-- 1/1/0/0/0 0/0 "GET / HTTP/1.1" "refused" "shop.test" -:- "" """#;

    #[test]
    fn a_server_that_does_not_answer() {
        let access = HaproxyAccess::parse(SILENT).unwrap();
        assert_eq!((access.status, access.termination_state.as_str(), access.server.as_deref()), (Some(504), "sH--", Some("srv001")));
        assert_eq!((access.connect_time, access.response_time), (Some(Duration::ZERO), None));
        assert_eq!(access.total_time, Some(Duration::from_millis(201)));
        assert_eq!((access.request_id.as_deref(), access.server_address.as_deref()), (Some("silent"), Some("127.0.0.1:37569")));
        assert_eq!((access.connection_error, access.tls_error), (None, None));
    }

    #[test]
    fn no_server_to_choose() {
        let access = HaproxyAccess::parse(NO_SERVER).unwrap();
        assert_eq!((access.status, access.termination_state.as_str(), access.server), (Some(503), "SC--", None));
        assert_eq!((access.server_address, access.connect_time, access.retries), (None, None, 0));
        let retried = HaproxyAccess::parse(&NO_SERVER.replace("1/1/0/0/0 0/0", "1/1/0/0/+3 0/0")).unwrap();
        assert_eq!((retried.retries, retried.redispatched), (3, true));
    }

    #[test]
    fn other_lines_are_no_records() {
        let down =
            r#"Server shop-shop-80/srv001 is DOWN, reason: Layer4 connection problem, info: "Connection refused", check duration: 0ms."#;
        for line in ["", down, &SILENT[..SILENT.len() - 1], &SILENT.replace("504 198", "abc 198"), &format!("{SILENT} more")] {
            assert_eq!(HaproxyAccess::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in r#"[ -~]{0,80}"#, cut in 0usize..300, extra in "[\"/ :+-]{0,6}") {
            let _ = HaproxyAccess::parse(&line);
            let cut = cut.min(SILENT.len());
            let _ = HaproxyAccess::parse(&format!("{}{extra}{}", &SILENT[..cut], &SILENT[cut..]));
        }
    }
}
