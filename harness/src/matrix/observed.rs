//! The table as a run saw it.

use std::collections::{BTreeMap, BTreeSet};

use super::table::{Cell, Matrix, Row, SCHEMA};
use crate::report::model::{ProbeReport, Report, RunReport};
use crate::signature::Phase;

pub fn matrix(report: &Report) -> Matrix {
    let gateways: BTreeSet<String> = report.runs.iter().map(|run| run.gateway.clone()).collect();
    let mut runs: BTreeMap<&str, BTreeMap<String, Vec<&RunReport>>> = BTreeMap::new();
    for run in &report.runs {
        runs.entry(&run.scenario).or_default().entry(run.gateway.clone()).or_default().push(run);
    }
    let rows = runs
        .into_iter()
        .map(|(scenario, by_gateway)| Row {
            scenario: scenario.to_owned(),
            title: by_gateway.values().flatten().map(|run| run.title.clone()).find(|title| !title.is_empty()).unwrap_or_default(),
            cells: by_gateway.into_iter().map(|(gateway, runs)| (gateway, cell(&runs))).collect(),
        })
        .collect();
    Matrix { schema: SCHEMA, source: "run", gateways: gateways.into_iter().collect(), rows }
}

/// Of all repeats of one scenario on one gateway.
fn cell(runs: &[&RunReport]) -> Cell {
    const WORST_FIRST: [&str; 5] = ["unexpected", "void", "unfinished", "proven", "skipped"];
    let verdict = WORST_FIRST.into_iter().find(|name| runs.iter().any(|run| run.verdict_name() == *name));
    let mut cell = Cell { verdict: verdict.map(str::to_owned), ..Cell::default() };
    if verdict == Some("skipped") {
        cell.skipped = runs.iter().find_map(|run| run.verdict.as_ref()?.reason().map(str::to_owned));
    }
    let phases = || runs.iter().flat_map(|run| &run.phases).filter(|phase| phase.phase == Phase::Fault);
    let mut probes: BTreeMap<&str, Vec<&ProbeReport>> = BTreeMap::new();
    phases().flat_map(|phase| &phase.probes).for_each(|probe| probes.entry(&probe.name).or_default().push(probe));
    let any_fails = probes.values().flatten().any(|probe| probe.failed > 0);
    for (name, reports) in probes {
        if any_fails && reports.iter().all(|probe| probe.failed == 0) {
            continue;
        }
        let attempts: u32 = reports.iter().map(|probe| probe.attempts).sum();
        let mut results: BTreeMap<&str, u32> = BTreeMap::new();
        let mut makers: BTreeSet<&str> = BTreeSet::new();
        for probe in reports {
            for (result, count) in probe.results.iter().filter(|(result, _)| !any_fails || fails(result)) {
                *results.entry(result).or_default() += count;
                makers.extend(probe.made_by.get(result).into_iter().flat_map(BTreeMap::keys).map(String::as_str));
            }
        }
        let what = results.into_iter().map(|(result, count)| match count == attempts {
            true => result.to_owned(),
            false => format!("{result} x {count} of {attempts}"),
        });
        let made_by = (!makers.is_empty()).then(|| makers.into_iter().collect::<Vec<_>>().join(", "));
        cell.add(name, what.collect::<Vec<_>>().join(", "), made_by);
    }
    for mark in phases().flat_map(|phase| &phase.gateway_log).filter_map(|line| line.mark.clone()) {
        cell.add_mark(mark);
    }
    cell
}

/// Whether a result, by its name in a report, is a failure: no whole response, or a status of 400 or more.
pub(super) fn fails(result: &str) -> bool {
    result.parse::<u16>().map_or(true, |status| status >= 400)
}
