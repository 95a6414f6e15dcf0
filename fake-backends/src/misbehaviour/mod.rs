//! What a backend can do wrong, one mechanism a file.
//!
//! The exhaustive lists are the enums of the settings: [`Accept`](crate::config::Accept) for new connections,
//! [`Delivery`](crate::config::Delivery) for responses, [`CertificateKind`](crate::config::CertificateKind) and
//! [`Handshake`](crate::config::Handshake) for TLS, [`Shutdown`](crate::config::Shutdown) for the process. Each is matched
//! in exactly one place.

pub(crate) mod bad_chunk;
pub(crate) mod certificate;
pub(crate) mod close_after_requests;
pub(crate) mod close_on_request;
pub(crate) mod delivery;
pub(crate) mod duplicate_content_length;
pub(crate) mod duplicate_transfer_encoding;
pub(crate) mod full_backlog;
pub(crate) mod garbage;
pub(crate) mod idle_close;
pub mod latency;
pub(crate) mod memory;
pub(crate) mod oversized_headers;
pub(crate) mod partial_body;
pub(crate) mod partial_headers;
pub(crate) mod reset;
pub(crate) mod silent;
pub(crate) mod stalled_body;
