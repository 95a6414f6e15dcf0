//! `response:` and `routes:` - how a request is answered.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Close, Grpc, Latency, WebSocket};
use crate::{
    ByteSize,
    units::{duration, optional_duration},
};

/// An answer. In a route, what is left out is taken from the default `response:`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Response {
    /// Status code; default 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Headers to add. A route's headers are added to the default's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Body text; default: a short JSON object that names the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Body of this many bytes instead of `body`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_size: Option<ByteSize>,
    /// One more header (`x-session-state`) with a value of this length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_size: Option<ByteSize>,
    /// Time between the end of the request and the response's headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Memory that each request takes, written to, from its arrival until it is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// A pause in the middle of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_pause: Option<BodyPause>,
    /// How much of the response reaches the socket, and in what form; default `whole`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// How the connection is closed after a `delivery` other than `whole`; default `fin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_close: Option<Close>,
    /// Another HTTP service asked before the answer is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// Takes WebSocket handshakes (RFC 6455); left out: the answerer knows no upgrade and answers as to any request, as RFC 9110
    /// section 7.8 lets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<WebSocket>,
    /// Answers gRPC calls (HTTP/2 and `content-type: application/grpc`); left out: they are answered as any request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Grpc>,
}

impl Response {
    /// This answer with its gaps filled from `default`.
    pub(crate) fn over(&self, default: &Response) -> Response {
        let mut headers = default.headers.clone();
        headers.extend(self.headers.clone());
        // A route that sets either form of body replaces both forms.
        let (body, body_size) = match (&self.body, self.body_size) {
            (None, None) => (default.body.clone(), default.body_size),
            own => (own.0.clone(), own.1),
        };
        Response {
            status: self.status.or(default.status),
            headers,
            body,
            body_size,
            header_size: self.header_size.or(default.header_size),
            latency: self.latency.or(default.latency),
            memory: self.memory.or(default.memory),
            body_pause: self.body_pause.or(default.body_pause),
            delivery: self.delivery.or(default.delivery),
            delivery_close: self.delivery_close.or(default.delivery_close),
            upstream: self.upstream.clone().or_else(|| default.upstream.clone()),
            websocket: self.websocket.or(default.websocket),
            grpc: self.grpc.clone().or_else(|| default.grpc.clone()),
        }
    }
}

/// An answer for some paths and methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Path prefix by whole segments: `/cart` matches `/cart` and `/cart/1`, not `/carts`.
    pub path: String,
    /// Methods; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The answer.
    #[serde(default)]
    pub response: Response,
}

impl Route {
    pub(crate) fn matches(&self, method: &str, path: &str) -> bool {
        let rest = path.strip_prefix(self.path.trim_end_matches('/'));
        let path_matches = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        path_matches && (self.methods.is_empty() || self.methods.iter().any(|m| m.eq_ignore_ascii_case(method)))
    }
}

/// A body that stops after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyPause {
    /// Bytes sent before the pause.
    pub after: ByteSize,
    /// Length of the pause; left out: the rest never comes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub duration: Option<Duration>,
}

/// How much of a response reaches the socket, and in what form. All but `whole` close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// A complete, well-formed response.
    Whole,
    /// Not a byte.
    Nothing,
    /// The status line and half a header.
    PartialHeaders,
    /// All headers and half of the body that `Content-Length` promises.
    PartialBody,
    /// Bytes that are not HTTP.
    Garbage,
    /// Two `Content-Length` headers that disagree.
    DuplicateContentLength,
    /// `Transfer-Encoding: chunked` twice.
    DuplicateTransferEncoding,
    /// A chunk size that is no hexadecimal number.
    BadChunk,
}

/// A call to another service, made for each request over a connection of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `http://host[:port]/path`.
    pub url: String,
    /// Time for name resolution and connecting.
    #[serde(default = "one_second", with = "duration")]
    pub connect_timeout: Duration,
    /// Time for the whole call.
    #[serde(default = "five_seconds", with = "duration")]
    pub timeout: Duration,
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}
