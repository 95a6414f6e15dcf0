//! The entries, as they are logged and served. Times are RFC 3339; durations are milliseconds.

use std::{net::SocketAddr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One line of the journal. An entry that changes (a request that is answered, a connection that ends) gets a new `seq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    Connection(ConnectionEntry),
    Request(RequestEntry),
}

impl Entry {
    /// Number of this version of the entry; grows with every change of any entry.
    pub fn seq(&self) -> u64 {
        match self {
            Entry::Connection(entry) => entry.seq,
            Entry::Request(entry) => entry.seq,
        }
    }

    pub(crate) fn set_seq(&mut self, seq: u64) {
        match self {
            Entry::Connection(entry) => entry.seq = seq,
            Entry::Request(entry) => entry.seq = seq,
        }
    }

    /// When the connection was accepted or the request received.
    pub fn time(&self) -> Timestamp {
        match self {
            Entry::Connection(entry) => entry.time,
            Entry::Request(entry) => entry.time,
        }
    }
}

/// A connection to the main port or the health port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionEntry {
    pub seq: u64,
    /// Accepted at.
    pub time: Timestamp,
    /// Connection id, counted from 1 in this process.
    pub connection: u64,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// `None`: no TLS was asked for on this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsOutcome>,
    /// Requests whose headers were read.
    pub requests: u64,
    /// Of those, requests to health endpoints.
    pub health_requests: u64,
    /// Bytes as HTTP saw them, inside of TLS.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Bytes that lay unread in the receive queue when this side closed; more than zero makes the kernel send RST.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unread_bytes: u64,
    /// `None` while the connection is open.
    pub ended: Option<ConnectionEnd>,
    /// Time open.
    #[serde(rename = "duration_ms", with = "optional_millis")]
    pub duration: Option<Duration>,
    /// The text of an error, if one ended the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a TLS handshake went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum TlsOutcome {
    Complete {
        version: String,
        alpn: Option<String>,
        server_name: Option<String>,
    },
    /// Failed on this side or by the client's alert.
    Failed {
        error: String,
    },
    /// The client spoke plain HTTP (or anything but TLS).
    NotTls,
    /// Never answered.
    Stalled,
}

/// How a connection ended, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionEnd {
    /// Closed after a response, as announced by `Connection: close` of either side or by HTTP/1.0.
    Completed,
    /// FIN from the client.
    ClientClosed,
    /// RST from the client.
    ClientReset,
    /// Idle timeout, closed by FIN.
    IdleClosed,
    /// Idle timeout, closed by RST.
    IdleReset,
    /// No first request in time.
    FirstRequestTimeout,
    /// `keepalive_requests` reached, not announced.
    RequestLimit,
    /// Closed by this side instead of (the rest of) a response.
    ServerClosed,
    /// Reset by this side.
    ServerReset,
    /// TLS handshake failed.
    TlsFailed,
    /// The process was told to end.
    Shutdown,
    /// What arrived was not HTTP.
    ProtocolError,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestEntry {
    pub seq: u64,
    /// Headers complete at.
    pub time: Timestamp,
    /// Request id, counted from 1 in this process.
    pub request: u64,
    pub connection: u64,
    /// This is the n-th request on its connection.
    pub number: u64,
    /// The `x-request-id` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    pub method: String,
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: String,
    /// A request to a health endpoint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub health: bool,
    /// `None`: never answered, or nobody was left to answer.
    pub status: Option<u16>,
    /// Request body bytes.
    pub bytes_in: u64,
    /// Response body bytes handed to the connection.
    pub bytes_out: u64,
    /// Time until the answer was ready, whether or not anybody was left to take it.
    #[serde(rename = "answer_ready_ms", default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub answer_ready: Option<Duration>,
    /// Time until the client went away, if it did so before the end of the response.
    #[serde(rename = "client_gone_ms", default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub client_gone: Option<Duration>,
    /// `None` while the request is in flight.
    pub ended: Option<RequestEnd>,
    /// Time until the end.
    #[serde(rename = "duration_ms", with = "optional_millis")]
    pub duration: Option<Duration>,
    /// Why the application's own upstream call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_error: Option<String>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestEnd {
    /// The whole response was written.
    Completed,
    /// The client closed (FIN) before the response was whole.
    ClientClosed,
    /// The client reset the connection, or on HTTP/2 the stream.
    ClientReset,
    /// This side closed before the response was whole.
    ServerClosed,
    /// This side reset the connection.
    ServerReset,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Durations as milliseconds with three decimals.
mod optional_millis {
    use super::*;

    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let millis = Option::<f64>::deserialize(deserializer)?;
        millis.map(|millis| Duration::try_from_secs_f64(millis / 1e3).map_err(serde::de::Error::custom)).transpose()
    }
}
