//! A scenario made ready for one gateway on one scale of time: names replaced by values, namespaces filled in. This is all
//! that the runner looks at.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::decode::Spanned;
use super::expect::{Hop, ObjectExpectation, ObjectName};
use super::model::{Need, PodNetwork};
use super::probe::{ConnectionUse, Send, SendKind};
use super::versions::Versions;
use crate::probe as wire;
use crate::signature::Expectation;

/// What one run does.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub scenario: String,
    pub title: String,
    pub level: String,
    pub tags: Vec<String>,
    pub gateway: String,
    /// Why there is nothing to run on this gateway.
    pub skip: Option<String>,
    /// Versions of the gateway that the expectation is for; `None`: any.
    pub versions: Option<Versions>,
    /// Namespace of the application.
    pub namespace: String,
    pub nodes: u32,
    pub link_latency: Option<Duration>,
    /// Percentage.
    pub link_loss: Option<f64>,
    /// How long a node may be silent before it counts as lost; `None`: as the cluster has it.
    pub node_grace: Option<Duration>,
    pub needs: Vec<Need>,
    /// Gateway settings, kebab-case, durations as text.
    pub settings: Map<String, Value>,
    /// Manifests of the healthy app, in order.
    pub app: Vec<Value>,
    pub setup: PlannedChange,
    pub fault: PlannedChange,
    pub fix: PlannedChange,
    /// Groups that run one after the other; the probes of a group run at the same time.
    pub probes: Vec<Vec<PlannedProbe>>,
    /// Both controls.
    pub healthy: Expectation,
    pub expected: Expectation,
    /// The hop that the scenario says fails first; `None` when it does not say.
    pub first_failing_hop: Option<Hop>,
}

/// A change with every value filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlannedChange {
    pub apply: Vec<Value>,
    pub patch: Vec<Value>,
    /// Namespace filled in for kinds that have one.
    pub delete: Vec<ObjectName>,
    /// Without any grace period.
    pub force_delete: Vec<ObjectName>,
    pub links: Vec<PlannedLink>,
    pub restart: Vec<ObjectName>,
    pub settle: PlannedSettle,
}

impl PlannedChange {
    pub fn is_empty(&self) -> bool {
        self.apply.is_empty()
            && self.patch.is_empty()
            && self.delete.is_empty()
            && self.force_delete.is_empty()
            && self.links.is_empty()
            && self.restart.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct PlannedLink {
    /// Labels of the pods whose nodes are meant.
    pub node_of: BTreeMap<String, String>,
    pub nodes: Option<u32>,
    pub latency: Option<Duration>,
    /// Percentage.
    pub loss: Option<f64>,
    pub pod_network: Option<PodNetwork>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PlannedSettle {
    pub within: Duration,
    pub rollouts: bool,
    /// Pods that are on their way out are waited for too.
    pub terminating: bool,
    pub gateway: bool,
    pub until: Vec<Spanned<ObjectExpectation>>,
}

impl Default for PlannedSettle {
    fn default() -> Self {
        PlannedSettle { within: Duration::from_secs(30), rollouts: true, terminating: true, gateway: true, until: Vec::new() }
    }
}

/// A probe with every value filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedProbe {
    pub name: String,
    pub send: Send,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub schedule: wire::Schedule,
    pub connection: ConnectionUse,
    /// How long a WebSocket is kept without a word.
    pub hold: Duration,
    pub deadline: Duration,
    pub during: Option<PlannedChange>,
    /// Pod that sends; `None`: the client.
    pub from: Option<ObjectName>,
}

impl PlannedProbe {
    /// For the probe itself; `address` is the gateway's `host:port` as seen from the pod that sends.
    pub fn to_wire(&self, address: String) -> wire::Probe {
        wire::Probe {
            name: self.name.clone(),
            kind: wire::ProbeKind::Http(wire::HttpProbe {
                address,
                method: self.send.method.clone(),
                target: self.send.target.clone(),
                host: self.send.authority(),
                headers: self.headers.clone(),
                // A WebSocket's text is a message, not a body.
                body: if self.send.kind == SendKind::WebSocket { String::new() } else { self.body.clone() },
                connection: match self.connection {
                    ConnectionUse::New => wire::Connection::New,
                    ConnectionUse::Reuse => wire::Connection::Reuse,
                },
                tls: self.send.tls.then(|| wire::TlsClient { server_name: self.send.host.clone(), trusted: None }),
                protocol: match self.send.kind {
                    SendKind::Http | SendKind::WebSocket => wire::Protocol::Http1,
                    SendKind::Http2 => wire::Protocol::Http2,
                    SendKind::Grpc => wire::Protocol::Grpc,
                },
                websocket: (self.send.kind == SendKind::WebSocket).then(|| wire::WebSocketProbe {
                    message: if self.body.is_empty() { "hello".to_owned() } else { self.body.clone() },
                    hold: self.hold.into(),
                }),
                body_kept: 2048,
            }),
            schedule: self.schedule.clone(),
            deadline: self.deadline.into(),
        }
    }

    /// Requests a second that it sends whatever comes back. A probe that waits for its answers slows down with the machine; it offers 0.
    pub fn offered_rate(&self) -> f64 {
        match self.schedule {
            wire::Schedule::Rate { per_second, .. } => per_second,
            wire::Schedule::Sequence { .. } | wire::Schedule::Sweep { .. } => 0.0,
        }
    }

    /// How many requests it sends, when that is known beforehand.
    pub fn expected_requests(&self) -> Option<u32> {
        match &self.schedule {
            wire::Schedule::Sequence { times, concurrency, .. } => Some(times * concurrency),
            wire::Schedule::Sweep { gaps, times, concurrency } => {
                u32::try_from(gaps.len()).ok().map(|gaps| gaps * (times + 1) * concurrency)
            }
            wire::Schedule::Rate { .. } => None,
        }
    }
}
