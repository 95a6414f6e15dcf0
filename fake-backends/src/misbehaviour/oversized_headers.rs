//! A response header larger than a gateway's buffer.
//!
//! Mechanism: one header with a value of the wanted size, otherwise well formed, as session state in cookies makes it. nginx reads
//! the whole header section into `proxy_buffer_size` (4k or 8k by default) and gives up with 502 when it does not fit.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::ByteSize;

pub(crate) const NAME: HeaderName = HeaderName::from_static("x-session-state");

pub(crate) fn add(headers: &mut HeaderMap, size: ByteSize) {
    let value = "s".repeat(usize::try_from(size.0).unwrap_or(usize::MAX).min(16 << 20));
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(NAME, value);
    }
}
