//! The events, in the order in which a run emits them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::scenario::Hop;
use crate::signature::{GatewayLine, HopRecord, Item, JournalRecord, Phase, TimelineEvent};

/// Version of the form of `events.jsonl`. A field may be added without a new version; readers ignore what they don't know.
pub const SCHEMA: u32 = 1;

/// What names one run of one scenario on one gateway: `wrong-target-port/nginx#1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunId {
    pub scenario: String,
    pub gateway: String,
    /// From 1, for `--repeat`.
    pub repeat: u32,
}

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}#{}", self.scenario, self.gateway, self.repeat)
    }
}

/// What a run comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Verdict {
    /// Healthy before, the documented signature while broken, healthy again after the fix.
    Proven,
    /// The controls held; with the fault in, something else was seen than the scenario says.
    Unexpected,
    /// A control failed or the lab could not do its work: nothing was learnt.
    Void { reason: String },
    /// Not run.
    Skipped { reason: String },
}

impl Verdict {
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Proven => "proven",
            Verdict::Unexpected => "unexpected",
            Verdict::Void { .. } => "void",
            Verdict::Skipped { .. } => "skipped",
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Void { reason } | Verdict::Skipped { reason } => Some(reason),
            Verdict::Proven | Verdict::Unexpected => None,
        }
    }
}

/// Deliberate omissions, for the test that a scenario without its fault, or without its fix, is never proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    #[default]
    Full,
    FaultLeftOut,
    FixLeftOut,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub at: Timestamp,
    /// The run it belongs to; `None` for what concerns the session as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    pub event: EventKind,
}

impl Event {
    /// Now, of the session.
    pub fn of_session(event: EventKind) -> Self {
        Event { at: Timestamp::now(), run: None, event }
    }

    /// Now, of one run.
    pub fn of_run(run: &RunId, event: EventKind) -> Self {
        Event { at: Timestamp::now(), run: Some(run.clone()), event }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum EventKind {
    /// First line of every file.
    SessionStarted {
        schema: u32,
        /// Version of gatelab.
        version: String,
        /// Command line, for the report.
        command: Vec<String>,
        /// Random seed of the order of runs.
        seed: u64,
        /// What is going to be run.
        runs: Vec<RunId>,
        /// Kernel, CPU count…: what a report says about the machine.
        machine: BTreeMap<String, String>,
    },
    /// A piece of set-up that concerns all runs, such as fetching a gateway.
    Preparing {
        what: String,
        done: u64,
        total: Option<u64>,
    },
    RunStarted {
        title: String,
        level: String,
        tags: Vec<String>,
        provider: String,
        /// As the gateway's binary reports it.
        gateway_version: String,
        control: Control,
        real_time: bool,
    },
    /// What the run is doing now, for the live view: `cluster up`, `waiting for rollout of Deployment/shop`.
    Step {
        step: String,
    },
    ClusterUp {
        took_ms: u64,
        nodes: Vec<String>,
        kubernetes: String,
    },
    PhaseStarted {
        phase: Phase,
    },
    /// Objects that were applied, patched or deleted, in short form.
    Changed {
        phase: Phase,
        changes: Vec<String>,
    },
    /// Objects are settled and the gateway's running configuration shows them.
    Settled {
        phase: Phase,
        took_ms: u64,
    },
    ProbeStarted {
        phase: Phase,
        probe: String,
        expected_requests: Option<u32>,
    },
    /// While a probe runs, at most a few times a second.
    ProbeProgress {
        phase: Phase,
        probe: String,
        done: u32,
        failed: u32,
    },
    /// One request and what it met.
    Request {
        phase: Phase,
        record: Box<crate::probe::Record>,
    },
    ProbeFinished {
        phase: Phase,
        summary: crate::probe::Summary,
    },
    /// One line of the gateway's log; lines that no rule reads are kept too.
    GatewayLog {
        phase: Phase,
        line: GatewayLine,
    },
    Journal {
        phase: Phase,
        record: JournalRecord,
    },
    Timeline {
        phase: Phase,
        change: TimelineEvent,
    },
    Hop {
        phase: Phase,
        hop: HopRecord,
    },
    FirstFailingHop {
        phase: Phase,
        hop: Hop,
    },
    /// An object as it was at the end of the phase.
    Object {
        phase: Phase,
        object: Arc<serde_json::Value>,
    },
    /// The phase held against the scenario.
    Judged {
        phase: Phase,
        items: Vec<Item>,
    },
    /// Something a person should know and that does not decide the verdict.
    Warning {
        message: String,
    },
    /// The lab failed at its own work; the run becomes void.
    Error {
        message: String,
        causes: Vec<String>,
        help: Option<String>,
    },
    RunFinished {
        verdict: Verdict,
        took_ms: u64,
        /// Wall time of each phase.
        phases_ms: BTreeMap<String, u64>,
    },
    /// Last line of every complete file.
    SessionFinished {
        took_ms: u64,
        interrupted: bool,
    },
}

impl EventKind {
    /// What was seen and how far a run is, against what was done and concluded: most of the bytes, and nothing that a
    /// summary needs.
    pub fn is_evidence(&self) -> bool {
        matches!(
            self,
            EventKind::Step { .. }
                | EventKind::ProbeProgress { .. }
                | EventKind::Request { .. }
                | EventKind::GatewayLog { .. }
                | EventKind::Journal { .. }
                | EventKind::Timeline { .. }
                | EventKind::Object { .. }
        )
    }
}
