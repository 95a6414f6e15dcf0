//! `server:` - the listener, the life of a connection, and the end of the process.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::units::{duration, optional_duration};

/// Settings of the main port. Each field says which connections follow when it is changed while the backend runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address of the main port. A change closes the listener and opens another; open connections stay.
    pub listen: SocketAddr,
    /// A separate port for the health endpoints, open from the first moment on. Needs a restart to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_listen: Option<SocketAddr>,
    /// Protocols spoken: `auto` takes HTTP/1.1 and HTTP/2 (h2c by prior knowledge, h2 by ALPN). New connections follow.
    pub protocol: Protocol,
    /// What becomes of new connections. Open connections stay as they are.
    pub accept: Accept,
    /// Length of the kernel's accept queue, see listen(2). A change opens the listener anew.
    pub backlog: u32,
    /// Connections served at a time; more wait in the accept queue. Follows at the next accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<usize>,
    /// Closes a connection that has not sent a first request within this time. Open connections follow.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub first_request_timeout: Option<Duration>,
    /// Closes a connection this long after the end of its last response, like Node's `keepAliveTimeout` or gunicorn's
    /// `--keep-alive`; left out: never. Open connections follow, also those idle already.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub keepalive_idle_timeout: Option<Duration>,
    /// How an idle connection is closed. Open connections follow.
    pub keepalive_idle_close: Close,
    /// Requests served on one connection before it is closed. Open connections follow, counted from their first request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_requests: Option<u64>,
    /// Whether the last of `keepalive_requests` responses says `Connection: close` (on HTTP/2: GOAWAY).
    pub keepalive_announce_close: bool,
    /// Closes the connection on reading its n-th request, which gets no answer. Open connections follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_on_request: Option<u64>,
    /// How `close_on_request` closes.
    pub close_on_request_with: Close,
    /// SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 section 6.5.2). New connections follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h2_max_concurrent_streams: Option<u32>,
    /// What SIGTERM does. Read when the signal arrives.
    pub shutdown: Shutdown,
    /// How long `shutdown: drain` keeps serving before it stops listening.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            health_listen: None,
            protocol: Protocol::Auto,
            accept: Accept::Serve,
            backlog: 1024,
            max_connections: None,
            first_request_timeout: None,
            keepalive_idle_timeout: None,
            keepalive_idle_close: Close::Fin,
            keepalive_requests: None,
            keepalive_announce_close: true,
            close_on_request: None,
            close_on_request_with: Close::Fin,
            h2_max_concurrent_streams: None,
            shutdown: Shutdown::Finish,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// HTTP versions spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2, told apart by the connection preface.
    Auto,
    /// Only HTTP/1.1 (and 1.0).
    Http1,
    /// Only HTTP/2; without TLS: h2c with prior knowledge.
    H2,
}

/// What the main port does with new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accept {
    /// Accept and serve.
    Serve,
    /// No listener: the kernel answers SYN with RST.
    Refuse,
    /// Listen without ever accepting, the accept queue full: SYNs are dropped.
    Never,
    /// Accept, read, and never say a word.
    Silent,
    /// Accept, and reset at once.
    Reset,
}

/// How a connection is closed by this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// close(2): FIN (the kernel makes it RST when unread data lie in the receive queue).
    #[default]
    Fin,
    /// SO_LINGER 0 and close(2): RST.
    Reset,
}

/// What SIGTERM does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shutdown {
    /// The process ends at once, as by the signal's default action.
    Exit,
    /// Stop listening, close idle connections, finish the requests in flight, exit.
    Finish,
    /// Keep listening and serving for `drain_timeout` (not ready, `Connection: close` on every response), then as `finish`.
    Drain,
    /// Nothing: SIGKILL has to do it.
    Ignore,
}
