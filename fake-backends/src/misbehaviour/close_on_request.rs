//! A connection closed on its n-th request.
//!
//! Mechanism: the request is read and gets no answer; the socket is closed. Unlike the idle timeout this is no race: it hits the n-th
//! request of every connection.

use crate::config::Server;

pub(crate) fn applies(server: &Server, number: u64) -> bool {
    server.close_on_request == Some(number)
}
