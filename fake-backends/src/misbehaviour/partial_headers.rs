//! A response that ends within its headers.
//!
//! Mechanism: the status line, the ordinary headers and half a header line are written, never the empty line that ends the
//! header section (RFC 9112 section 2.1); then the connection is closed.

use super::delivery::Intended;

pub(crate) fn bytes(intended: &Intended) -> Vec<u8> {
    format!("{}Content-Le", intended.head()).into_bytes()
}
