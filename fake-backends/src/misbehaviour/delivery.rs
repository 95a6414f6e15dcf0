//! Responses that hyper would never write: the connection is taken from hyper once the request is read, these bytes are put on
//! the wire as they are, and the connection is closed.

use bytes::Bytes;

use super::{bad_chunk, duplicate_content_length, duplicate_transfer_encoding, garbage, partial_body, partial_headers};
use crate::config::Delivery;

/// What a well-formed response would have held.
pub(crate) struct Intended {
    /// e.g. `200 OK`.
    pub(crate) status: String,
    /// Header lines, each ended by CRLF, without framing headers.
    pub(crate) headers: String,
    pub(crate) body: Bytes,
}

impl Intended {
    /// Status line and ordinary headers; the caller adds the framing and the empty line.
    pub(crate) fn head(&self) -> String {
        format!("HTTP/1.1 {}\r\n{}", self.status, self.headers)
    }
}

/// The bytes that are written before the close; `None`: leave the response to hyper.
pub(crate) fn bytes_for(delivery: Delivery, intended: &Intended) -> Option<Vec<u8>> {
    match delivery {
        Delivery::Whole => None,
        // Mechanism: the connection is closed with the request read and not a byte written, as by a worker that dies.
        Delivery::Nothing => Some(Vec::new()),
        Delivery::PartialHeaders => Some(partial_headers::bytes(intended)),
        Delivery::PartialBody => Some(partial_body::bytes(intended)),
        Delivery::Garbage => Some(garbage::bytes()),
        Delivery::DuplicateContentLength => Some(duplicate_content_length::bytes(intended)),
        Delivery::DuplicateTransferEncoding => Some(duplicate_transfer_encoding::bytes(intended)),
        Delivery::BadChunk => Some(bad_chunk::bytes(intended)),
    }
}
