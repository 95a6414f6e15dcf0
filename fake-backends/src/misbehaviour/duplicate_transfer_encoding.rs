//! `Transfer-Encoding: chunked` twice.
//!
//! Mechanism: a server and a library in it both add the header; two header lines mean the list `chunked, chunked`, which
//! RFC 9112 section 6.1 forbids. The body is chunked once. nginx refuses such responses since 1.23 ("upstream sent duplicate
//! header line").

use super::delivery::Intended;

pub(crate) fn bytes(intended: &Intended) -> Vec<u8> {
    let mut bytes = format!("{}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", intended.head()).into_bytes();
    bytes.extend_from_slice(format!("{:x}\r\n", intended.body.len()).as_bytes());
    bytes.extend_from_slice(&intended.body);
    bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    bytes
}
