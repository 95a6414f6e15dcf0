//! A report as plain text, for terminals, logs and pull requests. Colour is the terminal's business.

use std::fmt::Write;

use super::model::{Report, RunReport, Totals};
use crate::signature::Phase;

/// A line for each run, what was not met, and the totals.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let widest = report.runs.iter().map(|run| run.scenario.len()).max().unwrap_or_default();
    for run in &report.runs {
        let name = if run.repeat > 1 { format!("{} #{}", run.gateway, run.repeat) } else { run.gateway.clone() };
        let seconds = std::time::Duration::from_millis(run.took_ms).as_secs_f64();
        let line = format!("{:<11}{:<widest$}  {:<9} {:>5.1}s  {}", run.verdict_name(), run.scenario, name, seconds, told(run));
        let _ = writeln!(text, "{}", line.trim_end());
        details(run, &mut text);
    }
    let _ = writeln!(text, "{}", totals(&report.totals));
    text
}

/// `17 proven, 1 unexpected`.
pub fn totals(totals: &Totals) -> String {
    let counts = [
        (totals.proven, "proven"),
        (totals.unexpected, "unexpected"),
        (totals.void, "void"),
        (totals.skipped, "skipped"),
        (totals.unfinished, "unfinished"),
    ];
    let said: Vec<String> = counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    if said.is_empty() { "nothing was run".to_owned() } else { said.join(", ") }
}

/// What the clients met while the fault was in, or why there is nothing to tell.
fn told(run: &RunReport) -> String {
    if let Some(reason) = run.verdict.as_ref().and_then(|verdict| verdict.reason()) {
        return reason.to_owned();
    }
    let fault = run.phases.iter().find(|phase| phase.phase == Phase::Fault);
    let probes: Vec<String> = fault
        .into_iter()
        .flat_map(|phase| &phase.probes)
        .map(|probe| {
            let results: Vec<String> = probe.results.iter().map(|(result, count)| format!("{result} × {count}")).collect();
            format!("{}: {}", probe.name, results.join(", "))
        })
        .collect();
    probes.join("; ")
}

fn details(run: &RunReport, text: &mut String) {
    if run.verdict_name() == "proven" || run.verdict_name() == "skipped" {
        return;
    }
    for (phase, item) in run.unmet() {
        let _ = writeln!(text, "           {}: {}", phase.name(), item.name);
        let _ = writeln!(text, "             expected {}", item.expected);
        let _ = writeln!(text, "             observed {}", item.observed);
    }
    for error in &run.errors {
        let _ = writeln!(text, "           error: {error}");
    }
    for warning in &run.warnings {
        let _ = writeln!(text, "           warning: {warning}");
    }
}
