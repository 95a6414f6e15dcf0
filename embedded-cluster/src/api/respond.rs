//! What goes back to the client: bodies, media types, the transformations that `Accept` asks for.

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt as _;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::Value;

use super::status::Refusal;

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What a client wants objects turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Table,
    /// `PartialObjectMetadata` or its list.
    Metadata,
}

/// The first alternative of `Accept` that is served.
///
/// # Errors
/// 406 when none is; protobuf alone is one such.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, Refusal> {
    let mut asked = false;
    for value in headers.get_all(ACCEPT) {
        for alternative in value.to_str().unwrap_or_default().split(',') {
            let mut parts = alternative.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if media.is_empty() {
                continue;
            }
            asked = true;
            if !matches!(media, "application/json" | "*/*" | "application/*") {
                continue;
            }
            let parameters: Vec<&str> = parts.collect();
            let parameter = |name: &str| parameters.iter().find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
            match (parameter("as"), parameter("v")) {
                (None, _) => return Ok(Form::Object),
                (Some("Table"), Some("v1")) => return Ok(Form::Table),
                (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => return Ok(Form::Metadata),
                _ => {}
            }
        }
    }
    if asked { Err(Refusal::not_acceptable()) } else { Ok(Form::Object) }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn json(code: StatusCode, value: &Value) -> Response<Body> {
    raw_json(code, value.to_string())
}

pub(crate) fn raw_json(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "application/json", full(text))
}

pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", full(text))
}

pub(crate) fn with_type(code: StatusCode, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub(crate) fn stream(media: &'static str, items: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    let body = StreamBody::new(items.map(|item| item.map(Frame::data))).boxed_unsync();
    with_type(StatusCode::OK, media, body)
}

pub(crate) fn refusal(refusal: &Refusal) -> Response<Body> {
    let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if refusal.is_no_such_resource() {
        return text(code, format!("{}\n", refusal.message));
    }
    json(code, &refusal.status())
}

/// Adds RFC 7234 warnings, which kubectl prints to the user.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let escaped = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            response.headers_mut().append("warning", value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case(
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
        Some(Form::Table)
    )]
    #[case("application/vnd.kubernetes.protobuf, application/json", Some(Form::Object))]
    #[case("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some(Form::Metadata))]
    #[case("*/*", Some(Form::Object))]
    #[case("", Some(Form::Object))]
    #[case("application/vnd.kubernetes.protobuf", None)]
    fn accept_is_read_in_order(#[case] accept: &str, #[case] expected: Option<Form>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        assert_eq!(form(&headers).ok(), expected);
    }
}
