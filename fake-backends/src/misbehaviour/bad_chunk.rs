//! A chunk whose size is no hexadecimal number.
//!
//! Mechanism: one good chunk, then a chunk-size line that RFC 9112 section 7.1 does not allow. The headers are fine, so a gateway
//! has often sent its status on before it finds out.

use super::delivery::Intended;

pub(crate) fn bytes(intended: &Intended) -> Vec<u8> {
    let half = &intended.body[..intended.body.len() / 2];
    let mut bytes = format!("{}Transfer-Encoding: chunked\r\n\r\n", intended.head()).into_bytes();
    // A chunk of size zero would end the body.
    if !half.is_empty() {
        bytes.extend_from_slice(format!("{:x}\r\n", half.len()).as_bytes());
        bytes.extend_from_slice(half);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"zz\r\n");
    bytes
}
