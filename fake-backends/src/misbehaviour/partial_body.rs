//! A response that ends within its body.
//!
//! Mechanism: `Content-Length` promises the whole body, half of it is written, then the connection is closed: the message is
//! incomplete (RFC 9112 section 8).

use super::delivery::Intended;

pub(crate) fn bytes(intended: &Intended) -> Vec<u8> {
    let mut bytes = format!("{}Content-Length: {}\r\n\r\n", intended.head(), intended.body.len()).into_bytes();
    bytes.extend_from_slice(&intended.body[..intended.body.len() / 2]);
    bytes
}
