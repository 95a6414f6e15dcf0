//! What is otherwise on the other side: two runs, two builds or two gateways under the same faults.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::report::model::{ProbeReport, Report};
use crate::signature::Phase;

/// Latencies count as different from this factor on, and only beyond [`LEAST_APART_MS`]: below it they are the machine's.
const FACTOR: f64 = 1.5;
const LEAST_APART_MS: f64 = 250.0;

/// What one side of a comparison saw, by scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// As it was asked for.
    pub name: String,
    /// Names and versions of its gateways.
    pub gateways: BTreeSet<String>,
    /// The one that was asked for; without it every row names its own.
    gateway: Option<String>,
    facts: BTreeMap<String, Facts>,
}

/// Under one scenario's fault.
#[derive(Clone, Debug, Default, PartialEq)]
struct Facts {
    verdicts: BTreeSet<String>,
    /// By probe: result and maker of what came.
    results: BTreeMap<String, BTreeSet<String>>,
    /// By probe: the median in milliseconds, of each repeat.
    medians: BTreeMap<String, Vec<f64>>,
    /// By probe: requests that reached the application more often than they were sent.
    repeated: BTreeMap<String, bool>,
    marks: BTreeSet<String>,
}

impl Side {
    /// Runs of a report; `gateway`: of this one alone.
    pub fn of(name: &str, report: &Report, gateway: Option<&str>) -> Self {
        let mut side =
            Side { name: name.to_owned(), gateways: BTreeSet::new(), gateway: gateway.map(str::to_owned), facts: BTreeMap::new() };
        for run in report.runs.iter().filter(|run| gateway.is_none_or(|wanted| run.gateway == wanted)) {
            let verdict = run.verdict_name();
            if verdict == "skipped" || verdict == "unfinished" {
                continue;
            }
            side.gateways.insert(format!("{} {}", run.gateway, run.gateway_version).trim_end().to_owned());
            // Two sides of one gateway each are compared whatever the gateways are called.
            let row = if gateway.is_some() { run.scenario.clone() } else { format!("{} on {}", run.scenario, run.gateway) };
            let facts = side.facts.entry(row).or_default();
            facts.verdicts.insert(verdict.to_owned());
            for phase in run.phases.iter().filter(|phase| phase.phase == Phase::Fault) {
                facts.marks.extend(phase.gateway_log.iter().filter_map(|line| line.mark.clone()));
                phase.probes.iter().for_each(|probe| facts.take(probe));
            }
        }
        side
    }

    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }
}

impl Facts {
    fn take(&mut self, probe: &ProbeReport) {
        let results = self.results.entry(probe.name.clone()).or_default();
        for result in probe.results.keys() {
            for maker in probe.made_by.get(result).into_iter().flat_map(BTreeMap::keys) {
                results.insert(if maker == "nobody" { result.clone() } else { format!("{result} by {maker}") });
            }
        }
        self.medians.entry(probe.name.clone()).or_default().push(probe.latency_ms.median);
        *self.repeated.entry(probe.name.clone()).or_default() |= probe.backend_entries > probe.attempts;
    }

    fn median(&self, probe: &str) -> Option<f64> {
        let mut medians = self.medians.get(probe)?.clone();
        medians.sort_by(f64::total_cmp);
        medians.get(medians.len() / 2).copied()
    }
}

/// One thing that is otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub scenario: String,
    /// `verdict`, `log`, or of a probe: `home`, `home: median`, `home: reached the application`.
    pub what: String,
    pub left: String,
    pub right: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub schema: u32,
    pub left: String,
    pub right: String,
    pub left_gateways: BTreeSet<String>,
    pub right_gateways: BTreeSet<String>,
    /// Scenarios that both sides ran.
    pub compared: usize,
    pub alike: usize,
    pub rows: Vec<Row>,
    pub only_left: Vec<String>,
    pub only_right: Vec<String>,
}

pub fn compare(left: &Side, right: &Side) -> Difference {
    let mut difference = Difference {
        schema: super::table::SCHEMA,
        left: left.name.clone(),
        right: right.name.clone(),
        left_gateways: left.gateways.clone(),
        right_gateways: right.gateways.clone(),
        compared: 0,
        alike: 0,
        rows: Vec::new(),
        only_left: left.facts.keys().filter(|name| !right.facts.contains_key(*name)).cloned().collect(),
        only_right: right.facts.keys().filter(|name| !left.facts.contains_key(*name)).cloned().collect(),
    };
    // Every gateway has its own words: between two of them only what a client or the application notices is a difference.
    // Rows that name their gateway are held against those of the same one alone, whatever else either side ran.
    let same_words = left.gateway == right.gateway;
    for (scenario, a) in &left.facts {
        let Some(b) = right.facts.get(scenario) else { continue };
        let rows = rows(scenario, a, b, same_words);
        difference.compared += 1;
        difference.alike += usize::from(rows.is_empty());
        difference.rows.extend(rows);
    }
    difference
}

fn rows(scenario: &str, a: &Facts, b: &Facts, same_words: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |what: String, left: String, right: String| {
        if left != right {
            rows.push(Row { scenario: scenario.to_owned(), what, left, right });
        }
    };
    let joined =
        |set: Option<&BTreeSet<String>>| set.map_or_else(|| "-".to_owned(), |set| set.iter().cloned().collect::<Vec<_>>().join(", "));
    row("verdict".to_owned(), joined(Some(&a.verdicts)), joined(Some(&b.verdicts)));
    let probes: BTreeSet<&String> = a.results.keys().chain(b.results.keys()).collect();
    for probe in probes {
        row(probe.clone(), joined(a.results.get(probe)), joined(b.results.get(probe)));
        if let Some((one, other)) = a.median(probe).zip(b.median(probe))
            && (one - other).abs() > LEAST_APART_MS
            && one.max(other) > FACTOR * one.min(other)
        {
            row(format!("{probe}: median"), format!("{one:.0} ms"), format!("{other:.0} ms"));
        }
        let often = |facts: &Facts| match facts.repeated.get(probe) {
            Some(true) => "more often than sent".to_owned(),
            _ => "at most once".to_owned(),
        };
        row(format!("{probe}: reached the application"), often(a), often(b));
    }
    if same_words || !rows.is_empty() {
        let (left, right) = (joined(Some(&a.marks)), joined(Some(&b.marks)));
        if left != right {
            rows.push(Row { scenario: scenario.to_owned(), what: "log".to_owned(), left, right });
        }
    }
    rows
}
