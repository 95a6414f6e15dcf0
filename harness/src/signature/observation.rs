//! What one phase of a run saw. The runner fills this in; every field is evidence that an engineer could have gathered by
//! hand with curl and kubectl.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateways::LogRecord;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::probe::Record;

/// The three times that a scenario is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before the fault is in: the first control.
    Healthy,
    /// While the fault is in.
    Fault,
    /// After the documented fix: the second control.
    Fixed,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Healthy => "healthy",
            Phase::Fault => "fault",
            Phase::Fixed => "fixed",
        }
    }

    /// Whether the phase shows that the lab itself works, rather than the fault.
    pub fn is_control(self) -> bool {
        self != Phase::Fault
    }
}

/// Everything that one phase saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observations {
    /// Every attempt of every probe, by probe, in the order in which they were due.
    pub requests: BTreeMap<String, Vec<Record>>,
    /// The gateway's own lines (access and error log) written while the phase lasted.
    pub gateway_log: Vec<GatewayLine>,
    /// What the application pods wrote down about requests and connections.
    pub journal: Vec<JournalRecord>,
    /// Each hop that was tried, outermost first.
    pub hops: Vec<HopRecord>,
    /// What the hop test concludes from them; `None` when hops were not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failing_hop: Option<crate::scenario::Hop>,
    /// Objects as the API server gave them at the end of the phase: Service, EndpointSlice, Pod, Ingress, NetworkPolicy,
    /// Deployment, Event… of the application's namespace, and the gateway's.
    pub objects: Vec<Arc<serde_json::Value>>,
    /// What happened to pods and endpoints from the phase's change on, oldest first.
    pub timeline: Vec<TimelineEvent>,
}

/// One line of a gateway's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatewayLine {
    /// As it was written.
    pub text: String,
    /// As the kubelet or the gateway itself dated it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The request it is about, when the line names it or can be joined to a line that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Uuid>,
    /// As the gateway's vocabulary reads it; a line that no rule reads is shown to people, never matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<LogRecord>,
}

/// What an application wrote down about one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalRecord {
    pub pod: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// `x-request-id` as it arrived; `None` for what belongs to a connection alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
    /// How it ended, in the backend's own words, such as `completed`, `client-gone`, `idle-closed`, `tls-failed`.
    pub ended: String,
    /// Sent, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The whole entry, for reports.
    #[serde(default)]
    pub entry: serde_json::Value,
}

/// One hop, tried on its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HopRecord {
    pub hop: crate::scenario::Hop,
    /// What was tried, as a command a person could type.
    pub tried: String,
    pub worked: bool,
    /// What came back, for people: `502`, `ECONNREFUSED after 0.3 ms`.
    pub seen: String,
}

/// A change of a pod or an endpoint while probes ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineEvent {
    pub at: Timestamp,
    pub kind: TimelineKind,
    /// `Pod/shop-6d…`.
    pub object: String,
}

crate::scenario::decode::choice! {
    /// Kinds of changes that the runner watches for.
    pub enum TimelineKind ("a change of a pod") {
        /// The pod object was seen for the first time.
        PodCreated,
        /// A container of the pod began to run.
        ContainerStarted,
        /// Condition Ready turned True.
        PodReady,
        /// Condition Ready turned False while the pod was not being deleted.
        PodNotReady,
        /// A deletion timestamp appeared.
        PodTerminating,
        /// The object went away.
        PodDeleted,
        /// A container ended.
        ContainerTerminated,
        /// An address became ready in an EndpointSlice.
        EndpointAdded,
        /// An address stopped being ready in an EndpointSlice or left it.
        EndpointRemoved,
    }
}
