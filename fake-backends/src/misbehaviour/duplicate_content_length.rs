//! Two `Content-Length` headers that disagree.
//!
//! Mechanism: the body is written in full between two different promises of its length. A recipient has to treat this as an
//! unrecoverable error, a gateway answers 502 (RFC 9112 section 6.3).

use super::delivery::Intended;

pub(crate) fn bytes(intended: &Intended) -> Vec<u8> {
    let length = intended.body.len();
    let mut bytes = format!("{}Content-Length: {length}\r\nContent-Length: {}\r\n\r\n", intended.head(), length + 1).into_bytes();
    bytes.extend_from_slice(&intended.body);
    bytes
}
