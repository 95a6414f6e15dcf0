//! What the probe is told to do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::Micros;

/// Everything one run of the probe does; all probes of a plan run at the same time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub probes: Vec<Probe>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Repeated in every record.
    pub name: String,
    pub kind: ProbeKind,
    pub schedule: Schedule,
    /// Bounds one attempt from the moment it was due, waiting for a free slot included.
    pub deadline: Micros,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant, reason = "a plan holds a handful of probes, nearly all of them HTTP")]
pub enum ProbeKind {
    Http(HttpProbe),
    Tcp(TcpProbe),
    Dns(DnsProbe),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// `host:port` that is connected to; a name is resolved as the pod would.
    pub address: String,
    pub method: String,
    /// Request target as it stands on the request line.
    pub target: String,
    /// `Host` header; may differ from the address.
    pub host: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    #[serde(default)]
    pub body: String,
    pub connection: Connection,
    #[serde(default)]
    pub tls: Option<TlsClient>,
    #[serde(default)]
    pub protocol: Protocol,
    /// The request asks for a WebSocket, and uses it when it gets it.
    #[serde(default)]
    pub websocket: Option<WebSocketProbe>,
    /// How many bytes of the response body are kept; all are read and hashed.
    #[serde(default = "default_body_kept")]
    pub body_kept: usize,
}

fn default_body_kept() -> usize {
    2048
}

/// What is spoken on the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2: by prior knowledge without TLS (h2c), by ALPN with it.
    Http2,
    /// A unary gRPC call over HTTP/2; `body` is the message.
    Grpc,
}

/// What is done with a WebSocket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocketProbe {
    /// Sent once, to be sent back.
    pub message: String,
    /// How long the connection is then kept without a word before it is closed.
    pub hold: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connection {
    /// Keep connections open and use them again, as browsers and gateways do.
    Reuse,
    /// A connection for each request, as `curl` does.
    New,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsClient {
    pub server_name: String,
    /// PEM of the authorities that are trusted; without it any certificate will do (`curl -k`).
    #[serde(default)]
    pub trusted: Option<String>,
}

/// `nc -vz`: is there a connection to be had?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpProbe {
    pub address: String,
}

/// `nslookup`: asks the resolvers of /etc/resolv.conf, with its search list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsProbe {
    pub name: String,
}

/// When attempts are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// `times` attempts one after the other in each of `concurrency` lanes: the next is due `gap` after the answer to the one before.
    Sequence { times: u32, gap: Micros, concurrency: u32 },
    /// As `Sequence`, for each gap in turn; the record names the gap that went before the request. The first request of
    /// each gap is sent without one (it warms the connection up) and is recorded without a gap.
    Sweep { gaps: Vec<Micros>, times: u32, concurrency: u32 },
    /// Open loop: attempts are due at fixed times, whether or not earlier ones were answered, so that a stall is not
    /// hidden by the client waiting for it. Latency counts from the time an attempt was due.
    Rate {
        /// Attempts a second.
        per_second: f64,
        /// At most this long; a line `stop` on standard input ends it earlier.
        lasting: Micros,
        /// At most so many in flight; attempts beyond wait, and the wait counts.
        concurrency: u32,
    },
}

impl Probe {
    /// The same request, once, without anything that only takes time.
    pub fn brief(mut self) -> Self {
        self.schedule = Schedule::once();
        if let ProbeKind::Http(HttpProbe { websocket: Some(websocket), .. }) = &mut self.kind {
            websocket.hold = Micros::ZERO;
        }
        self
    }
}

impl Schedule {
    /// One attempt.
    pub fn once() -> Self {
        Schedule::Sequence { times: 1, gap: Micros::ZERO, concurrency: 1 }
    }

    /// Upper bound of the whole schedule when every attempt takes `deadline`.
    pub fn bound(&self, deadline: Duration) -> Duration {
        match self {
            Schedule::Sequence { times, gap, .. } => (gap.duration() + deadline) * *times,
            Schedule::Sweep { gaps, times, .. } => gaps.iter().map(|gap| (gap.duration() + deadline) * *times + deadline).sum(),
            Schedule::Rate { lasting, .. } => lasting.duration() + deadline,
        }
    }
}
