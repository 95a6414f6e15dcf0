//! What the probe reports: one [`Record`] an attempt, one [`Summary`] a probe.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fake_backends::journal::Page;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A span of time on the wire: whole microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    pub const ZERO: Micros = Micros(0);

    pub fn duration(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

/// One line of the probe's output.
#[allow(clippy::large_enum_variant, reason = "nearly every line is a record, so a box would save nothing")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    Record(Record),
    Summary(Summary),
    /// What the application in the same container wrote down, or why that cannot be read.
    Journal(Result<Page, String>),
}

/// One attempt, from the moment it was due to its last byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub probe: String,
    /// From 0, in the order in which attempts were due.
    pub sequence: u32,
    /// Sent as `x-request-id`.
    pub request_id: Uuid,
    /// The pause before this request, when gaps are swept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Micros>,
    /// How long that pause was when it was over; on a busy machine longer than `gap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Micros>,
    /// When the attempt was due by the probe's clock.
    pub due_at: Timestamp,
    pub finished_at: Timestamp,
    pub outcome: Outcome,
    /// How far the attempt came: the phase that failed, or `Done`.
    pub phase: Phase,
    /// Name of the errno that the kernel gave, such as `ECONNREFUSED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// In words, for people only; never matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Response headers in order, names in lower case, values as text (bytes that are not UTF-8 replaced).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// First bytes of the response body.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Bytes of body received.
    #[serde(default)]
    pub body_length: u64,
    /// Of all bytes received; empty when there was no response.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body_sha256: String,
    pub timings: Timings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionUse>,
    /// Addresses that a DNS probe was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// What became of a WebSocket that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket: Option<WebSocketUse>,
    /// How a gRPC call ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcEnd>,
}

impl Record {
    /// No complete response, or one that reports an error.
    pub fn failed(&self) -> bool {
        self.outcome != Outcome::Answered
            || self.status.is_none_or(|status| status >= 400)
            || self.websocket.is_some() && self.status != Some(101)
            || self.grpc.as_ref().is_some_and(|end| end.status != Some(0))
    }

    /// First value of a response header, by name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A complete response (HTTP), a connection (TCP), an answer with addresses (DNS).
    Answered,
    /// ECONNREFUSED: the address is there and nothing listens, or a firewall rejects with RST.
    Refused,
    /// ECONNRESET or EPIPE after the connection was made.
    Reset,
    /// EHOSTUNREACH, ENETUNREACH and their like.
    Unreachable,
    /// The peer closed (FIN) before a byte of the response, or within its head.
    Closed,
    /// The head came whole, the body did not.
    Truncated,
    /// The deadline passed; `phase` says in what.
    Timeout,
    TlsFailed,
    /// The resolver says that the name does not exist (NXDOMAIN), or has no address.
    NameNotFound,
    /// The resolver did not answer, or answered with a failure of its own.
    NameFailed,
    /// Bytes came that are no HTTP.
    Malformed,
    /// The probe itself could not do what the plan says.
    ProbeError,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::Reset => "reset",
            Outcome::Unreachable => "unreachable",
            Outcome::Closed => "closed",
            Outcome::Truncated => "truncated",
            Outcome::Timeout => "timeout",
            Outcome::TlsFailed => "tls-failed",
            Outcome::NameNotFound => "name-not-found",
            Outcome::NameFailed => "name-failed",
            Outcome::Malformed => "malformed",
            Outcome::ProbeError => "probe-error",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Waiting for a free slot.
    Queued,
    Resolve,
    Connect,
    Tls,
    /// Request sent, response head awaited.
    Head,
    Body,
    /// The connection speaks WebSocket.
    Upgraded,
    Done,
}

/// All from the moment the attempt was due; `None` where it did not come so far or, on a reused connection, had no need to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Began to do something: later than 0 only when an open-loop probe had no free slot.
    pub started: Micros,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Micros>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<Micros>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_done: Option<Micros>,
    /// Head of the response was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Micros>,
    pub total: Micros,
}

/// A WebSocket from the end of its handshake on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WebSocketUse {
    /// The message came back after so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<Micros>,
    /// Pings that the other side sent.
    pub pings: u32,
    /// Until this side closed it, or found it closed.
    pub open: Micros,
    /// Of the other side's close frame; 1005: it held none; 1006: the connection ended without one (RFC 6455 section 7.1.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_code: Option<u16>,
}

/// The end of a gRPC call, from the response's trailers or, without a message, its headers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GrpcEnd {
    /// `grpc-status`; none where the response was none of gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `grpc-message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionUse {
    /// From 0 within the probe, in the order of opening.
    pub id: u32,
    /// Requests that went over it before this one.
    pub requests_before: u32,
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl ConnectionUse {
    pub fn reused(&self) -> bool {
        self.requests_before > 0
    }
}

/// The attempts of one probe added up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub probe: String,
    pub attempts: u32,
    /// By status code for responses, by [`Outcome::name`] for the rest.
    pub results: BTreeMap<String, u32>,
    /// Attempts and failures for each swept gap, by gap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<GapSummary>,
    pub connections: u32,
    pub latency: Latency,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapSummary {
    pub gap: Micros,
    pub attempts: u32,
    /// No response, or one with a status from 500 on.
    pub failed: u32,
}

/// Quantiles of the total time, failures included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub min: Micros,
    pub median: Micros,
    pub p90: Micros,
    pub p99: Micros,
    pub max: Micros,
}
