//! What a scenario's probes send, and when.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::decode::{Decode, Spanned, choice, element, parsed};
use super::expect::ObjectName;
use super::model::Change;
use super::problem::Problems;
use super::time::Time;
use super::yaml::Node;

element! {
    /// A series of requests.
    pub struct ProbeSpec ("a probe") {
        /// Method and URL: `GET http://shop.test/`, `WS ws://shop.test/feed`, `GRPC grpc://shop.test/pkg.Service/Method`. The request
        /// goes to the gateway; the URL's host is the Host header.
        pub send: Spanned<Send>,
        #[serde(default)]
        pub headers: BTreeMap<String, String>,
        /// Request body; a WebSocket's message; a gRPC call's message, as bytes of protobuf.
        pub body: Option<String>,
        /// How many requests (of each gap, when gaps are swept). Without it: 1.
        pub times: Option<Spanned<u32>>,
        /// Pause between an answer and the next request on the same lane.
        pub gap: Option<Spanned<Time>>,
        /// Pauses that are tried in turn.
        pub sweep: Option<Spanned<Sweep>>,
        /// Requests a second, sent when they are due whether or not earlier ones were answered. Excludes times, gap, sweep.
        pub rate: Option<Spanned<u32>>,
        /// How long a rate is held at most. Without it: 10s, or until what happens `during` has settled.
        pub lasting: Option<Spanned<Time>>,
        /// Lanes, or with a rate the most requests in flight. Without it: 1, with a rate 64.
        pub concurrency: Option<Spanned<u32>>,
        /// Connections to the gateway. Without it: new.
        pub connection: Option<ConnectionUse>,
        /// WebSocket: how long it is kept open without a word, once the message has come back. Without it: not at all.
        pub hold: Option<Spanned<Time>>,
        /// How long the client waits for an answer, and for the end of what it holds. Without it: 10s.
        pub deadline: Option<Time>,
        /// Change that is made while the load is on: begun half a second after the first request; the load ends half a second
        /// after it has settled.
        pub during: Option<Spanned<Change>>,
        /// Pod that sends. Without it: the client.
        pub from: Option<ObjectName>,
        /// Runs at the same time as the probe before it (by name) instead of after it.
        #[serde(default)]
        pub together: bool,
    }
}

element! {
    /// Pauses from one to another in equal steps, both ends included.
    pub struct Sweep ("a sweep") {
        pub from: Time,
        pub to: Time,
        pub step: Time,
    }
}

choice! {
    /// How the client uses its connections to the gateway.
    pub enum ConnectionUse ("a use of connections") {
        /// One for each request.
        New,
        /// Kept open and used again.
        Reuse,
    }
}

/// What a probe's request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendKind {
    Http,
    /// HTTP/2 by prior knowledge, or by ALPN.
    Http2,
    WebSocket,
    Grpc,
}

/// A request line with a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub kind: SendKind,
    /// Of the HTTP request.
    pub method: String,
    pub tls: bool,
    /// Without the port.
    pub host: String,
    pub port: Option<u16>,
    /// Path and query.
    pub target: String,
}

impl Send {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (method, url) = text.split_once(' ').ok_or("it has to be a method and a URL")?;
        if !method.chars().all(|letter| letter.is_ascii_uppercase()) {
            return Err("a method is in capital letters".to_owned());
        }
        let uri: http::Uri = url.trim().parse().map_err(|error| format!("the URL: {error}"))?;
        let (kind, tls) = match (method, uri.scheme_str().unwrap_or_default()) {
            ("WS", "ws") => (SendKind::WebSocket, false),
            ("WS", "wss") => (SendKind::WebSocket, true),
            ("WS", _) => return Err("the URL of a WebSocket has to begin with ws:// or wss://".to_owned()),
            ("GRPC", "grpc") => (SendKind::Grpc, false),
            ("GRPC", "grpcs") => (SendKind::Grpc, true),
            ("GRPC", _) => return Err("the URL of a gRPC call has to begin with grpc:// or grpcs://".to_owned()),
            (_, "http") => (SendKind::Http, false),
            (_, "https") => (SendKind::Http, true),
            (_, "h2c") => (SendKind::Http2, false),
            (_, "h2") => (SendKind::Http2, true),
            _ => return Err("the URL has to begin with http://, https://, h2c:// or h2://".to_owned()),
        };
        let method = match kind {
            SendKind::Http | SendKind::Http2 => method,
            SendKind::WebSocket => "GET",
            SendKind::Grpc => "POST",
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("the URL has no host")?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Send { kind, method: method.to_owned(), tls, host: host.to_owned(), port: uri.port_u16(), target: target.to_owned() })
    }

    /// As it stands in the Host header.
    pub fn authority(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }
}

impl std::fmt::Display for Send {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (method, scheme) = match (self.kind, self.tls) {
            (SendKind::Http, false) => (self.method.as_str(), "http"),
            (SendKind::Http, true) => (self.method.as_str(), "https"),
            (SendKind::Http2, false) => (self.method.as_str(), "h2c"),
            (SendKind::Http2, true) => (self.method.as_str(), "h2"),
            (SendKind::WebSocket, false) => ("WS", "ws"),
            (SendKind::WebSocket, true) => ("WS", "wss"),
            (SendKind::Grpc, false) => ("GRPC", "grpc"),
            (SendKind::Grpc, true) => ("GRPC", "grpcs"),
        };
        write!(f, "{method} {scheme}://{}{}", self.authority(), self.target)
    }
}

impl Decode for Send {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        parsed(node, problems, "a request", "GET http://shop.test/", Send::parse)
    }
}

impl Serialize for Send {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Send {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Send".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "description": "Method and URL: GET http://shop.test/", "type": "string", "pattern": "^([A-Z]+ (https?|h2c?)|WS wss?|GRPC grpcs?)://" })
    }
}
