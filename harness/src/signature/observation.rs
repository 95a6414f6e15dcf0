//! What one phase of a run saw. The runner fills this in; every field is evidence that an engineer could have gathered by
//! hand with curl and kubectl.

use std::collections::BTreeMap;

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
    pub objects: Vec<serde_json::Value>,
    /// What happened to pods and endpoints while the probes ran, oldest first.
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
    /// The request it is about, when the line names it or can be joined to a line that does (nginx: by connection number).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Uuid>,
    pub record: LogRecord,
}

/// A gateway's log line, read. One variant for each kind of line of each gateway, in that gateway's own vocabulary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LogRecord {
    /// A line of nginx's error log.
    NginxError {
        /// `error`, `warn`, `crit`…
        level: String,
        /// What is said before the first ` while ` and after errno, such as `connect() failed` or
        /// `upstream prematurely closed connection`.
        message: String,
        /// Number of the errno that nginx prints as `(111: Connection refused)`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errno: Option<i32>,
        /// What nginx was doing, such as `connecting to upstream`.
        #[serde(default, rename = "while", skip_serializing_if = "Option::is_none")]
        doing: Option<String>,
        /// Upstream as printed, such as `http://10.244.1.4:8080/`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upstream: Option<String>,
    },
    /// A line of nginx's access log.
    NginxAccess {
        status: u16,
        /// One for each try, in order; `None` where nginx prints `-`.
        upstream_status: Vec<Option<u16>>,
        /// One for each try.
        upstream_address: Vec<String>,
        /// One for each try: whether a response header was read from the upstream (`$upstream_header_time` is a number).
        /// Where not, the status is nginx's own 502 or 504.
        #[serde(default)]
        upstream_answered: Vec<bool>,
    },
    /// A line of Envoy's access log.
    Envoy {
        status: u16,
        /// Short forms, such as `UF`.
        response_flags: Vec<String>,
        /// `%RESPONSE_CODE_DETAILS%`, such as `via_upstream`.
        response_code_details: String,
        /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transport_failure: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upstream_host: Option<String>,
        /// `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempts: Option<u32>,
    },
    /// A line of HAProxy's HTTP log.
    Haproxy {
        status: i32,
        /// Such as `SC--`.
        termination_state: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retries: Option<u32>,
    },
    /// A line of Traefik's log or access log.
    Traefik {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// Error text of a debug line, such as `dial tcp 10.244.1.4:8081: connect: connection refused`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A line that no rule reads: shown to people, never matched.
    Other,
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
