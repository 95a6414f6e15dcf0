//! An idle timeout that is shorter than the client's.
//!
//! Mechanism: a timer runs from the moment the last byte of a response was handed to the kernel; whatever the client sends stops it.
//! When it fires the socket is closed at once, without a look at the receive queue, as event loops do that run their timers before
//! their I/O (libuv does). A request that arrives in that instant, or is on its way, meets a closed socket: the kernel answers it
//! with RST. Nothing here waits for a request to come, so the race is the client's to lose.

use tokio::time::Instant;

use crate::{config::Server, connection::Activity, journal::ConnectionEnd};

use crate::config::Close;

/// A close that is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) close: Close,
    pub(crate) ended: ConnectionEnd,
}

/// When this connection is to be closed if nothing more happens on it.
pub(crate) fn due(activity: &Activity, server: &Server) -> Option<Due> {
    if let Some(since) = activity.idle_since {
        let close = server.keepalive_idle_close;
        let ended = match close {
            Close::Fin => ConnectionEnd::IdleClosed,
            Close::Reset => ConnectionEnd::IdleReset,
        };
        return server.keepalive_idle_timeout.map(|timeout| Due { at: since + timeout, close, ended });
    }
    if activity.requests == 0 {
        let due = |timeout| Due { at: activity.accepted + timeout, close: Close::Fin, ended: ConnectionEnd::FirstRequestTimeout };
        return server.first_request_timeout.map(due);
    }
    None
}
