//! gRPC over HTTP/2 as far as a unary call needs it (gRPC's "PROTOCOL-HTTP2"). Messages are never decoded.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request::Parts};

use crate::config::Grpc;

/// Bytes of a call's message that are kept to be sent back.
pub(super) const LARGEST: usize = 64 * 1024;

/// gRPC's health checking protocol.
pub(super) const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// gRPC is spoken over HTTP/2 alone, and told by its content type.
pub(super) fn is_call(parts: &Parts) -> bool {
    parts.version == Version::HTTP_2
        && parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// `HealthCheckResponse`: field 1, an enum: SERVING is 1, NOT_SERVING 2.
pub(super) fn health(ready: bool) -> Vec<u8> {
    framed(&[0x08, if ready { 1 } else { 2 }])
}

/// A message as it is put on the wire: not compressed, length, bytes.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// What ends a call, in the trailers or, without a message, in the headers.
pub(super) fn status_headers(settings: &Grpc) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(u16::from(settings.status)));
    if let Some(message) = settings.message.as_ref().and_then(|message| HeaderValue::from_str(message).ok()) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    headers
}
