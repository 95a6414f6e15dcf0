//! A connection closed after N responses, with and without saying so.
//!
//! Mechanism: announced, the N-th response carries `Connection: close` (RFC 9112 section 9.6), and a gateway does not use the connection
//! again. Unannounced, the response looks like any other and the socket is closed once it is flushed: a gateway that has put the
//! connection back into its pool may send the next request into the close.

use crate::config::Server;

/// Whether response `number` of a connection has to say that it is the last.
pub(crate) fn announce(server: &Server, number: u64) -> bool {
    server.keepalive_announce_close && server.keepalive_requests.is_some_and(|limit| number >= limit)
}

/// Whether a connection with so many flushed responses is to be closed without a word.
pub(crate) fn close_now(server: &Server, flushed: u64) -> bool {
    !server.keepalive_announce_close && server.keepalive_requests.is_some_and(|limit| flushed >= limit)
}
