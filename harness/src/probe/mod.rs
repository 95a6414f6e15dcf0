//! The lab's client, `gatelab probe`: follows a plan given as one line of JSON and writes one line of JSON for each thing it
//! met. It runs inside pods (by exec), so that every cluster is probed from the same place with the same program.
//!
//! * [`plan`] is what to send and when, [`record`] what came of it; both are the wire format between runner and probe;
//! * [`http`], [`websocket`], [`tcp`] and [`dns`] each do one attempt, [`schedule`] decides when, [`summary`] adds up;
//! * [`command`] is the container command around them.

pub mod command;
pub mod dns;
pub mod failure;
pub mod http;
pub mod plan;
pub mod record;
pub mod schedule;
pub mod summary;
pub mod tcp;
pub mod tls;
pub mod websocket;

#[cfg(test)]
mod tests;

pub use command::{JOURNAL, ProbeArgs, QUIT, STOP, run};
pub use plan::{Connection, DnsProbe, HttpProbe, Plan, Probe, ProbeKind, Protocol, Schedule, TcpProbe, TlsClient, WebSocketProbe};
pub use record::{GrpcEnd, Line, Micros, Outcome, Phase, Record, Summary, Timings, WebSocketUse};
