//! Bytes that are not HTTP.
//!
//! Mechanism: control bytes, high bytes and no `HTTP/` where a status line is due. A CRLF is included so that a parser which waits
//! for a whole line gets one.

pub(crate) fn bytes() -> Vec<u8> {
    b"\x00\xff\xfe\x7f\x01not a status line\x80\x9d\r\n\r\n\x00\x00\xde\xad\xbe\xef\r\n".to_vec()
}
