//! What `report.json` holds. A field may be added without a new version; nothing is removed or changes its meaning within one.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::events::{Control, Verdict};
use crate::signature::{Item, Phase};

/// Version of the form of `report.json`.
pub const SCHEMA: u32 = 1;

/// One session: every run that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    pub schema: u32,
    /// Version of gatelab.
    pub gatelab: String,
    pub command: Vec<String>,
    /// RFC 3339.
    pub started_at: String,
    pub took_ms: u64,
    /// The events end before the session did: it was interrupted or killed.
    pub incomplete: bool,
    pub machine: BTreeMap<String, String>,
    pub totals: Totals,
    pub runs: Vec<RunReport>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    pub proven: u32,
    pub unexpected: u32,
    pub void: u32,
    pub skipped: u32,
    /// Begun or announced, and not finished.
    pub unfinished: u32,
}

/// One scenario on one gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunReport {
    pub scenario: String,
    pub gateway: String,
    pub repeat: u32,
    pub title: String,
    pub level: String,
    pub tags: Vec<String>,
    pub provider: String,
    pub gateway_version: String,
    /// Whether something was left out on purpose.
    pub control: Control,
    pub real_time: bool,
    /// `None`: not finished.
    pub verdict: Option<Verdict>,
    pub took_ms: u64,
    pub phases: Vec<PhaseReport>,
    pub warnings: Vec<String>,
    /// What went wrong with the lab itself.
    pub errors: Vec<String>,
}

impl RunReport {
    /// `proven`, `unexpected`, `void`, `skipped` or `unfinished`.
    pub fn verdict_name(&self) -> &'static str {
        self.verdict.as_ref().map_or("unfinished", Verdict::name)
    }

    /// Items that were not met, with the phase of each.
    pub fn unmet(&self) -> impl Iterator<Item = (Phase, &Item)> {
        self.phases.iter().flat_map(|phase| phase.items.iter().filter(|item| !item.met).map(move |item| (phase.phase, item)))
    }
}

/// One look at the scenario: healthy, broken or fixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseReport {
    pub phase: Phase,
    pub took_ms: u64,
    /// What was changed to get here.
    pub changes: Vec<String>,
    /// How long objects and gateway took to settle after that.
    pub settled_ms: Option<u64>,
    /// Expected and observed, item by item.
    pub items: Vec<Item>,
    pub probes: Vec<ProbeReport>,
    pub hops: Vec<HopReport>,
    pub first_failing_hop: Option<String>,
    /// Different lines of the gateway's log (numbers and ids put aside), each with how often it came.
    pub gateway_log: Vec<LogReport>,
    /// Entries of the application's journal, by how they ended.
    pub journal: BTreeMap<String, u32>,
    /// Changes of pods and endpoints, oldest first.
    pub timeline: Vec<TimelineReport>,
    /// Objects at the end of the phase, without what only machines read.
    pub objects: Vec<Arc<serde_json::Value>>,
    /// How many objects `events.jsonl` alone has: those of proven runs from the second repeat on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub objects_left_out: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The requests of one probe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeReport {
    pub name: String,
    pub attempts: u32,
    /// No response, or a status of 400 or more.
    pub failed: u32,
    /// By status, or for requests without a response by how they ended.
    pub results: BTreeMap<String, u32>,
    /// Who made the answers of each result: `gateway`, `sidecar`, `application` or `nobody`.
    #[serde(default)]
    pub made_by: BTreeMap<String, BTreeMap<String, u32>>,
    /// Entries about these requests in the application's journal; more than there were requests where a gateway tries again.
    #[serde(default)]
    pub backend_entries: u32,
    /// Milliseconds from when a request was due to its last byte.
    pub latency_ms: LatencyReport,
    /// By the pause before the request, when pauses were swept.
    pub gaps: Vec<GapReport>,
    /// The first request of each kind of result.
    pub samples: Vec<RequestReport>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyReport {
    pub min: f64,
    pub median: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GapReport {
    pub gap_ms: f64,
    pub attempts: u32,
    pub failed: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RequestReport {
    pub request_id: String,
    /// RFC 3339.
    pub at: String,
    pub result: String,
    pub took_ms: f64,
    pub headers: Vec<(String, String)>,
    /// Begin of the body.
    pub body: String,
    pub errno: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HopReport {
    pub hop: String,
    pub tried: String,
    pub worked: bool,
    pub seen: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogReport {
    pub count: u32,
    /// The first such line.
    pub line: String,
    /// What an engineer remembers of it: `ECONNREFUSED while connecting to upstream`, `UF`, `SC--`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimelineReport {
    /// RFC 3339.
    pub at: String,
    pub kind: String,
    pub object: String,
    /// Requests that failed from this change on until the next.
    pub failures_after: u32,
}
