//! What came of a session: scenarios down, gateways across.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::OwoColorize;

use super::live::seconds;
use crate::events::{Event, EventKind, RunId, Verdict};

/// A verdict in its colour, as wide as the longest.
pub fn verdict_word(verdict: &Verdict) -> String {
    // Padded before it is coloured: escape codes count as width.
    let word = format!("{:<10}", verdict.name());
    match verdict {
        Verdict::Proven => word.green().to_string(),
        Verdict::Unexpected => word.red().bold().to_string(),
        Verdict::Void { .. } => word.magenta().to_string(),
        Verdict::Skipped { .. } => word.yellow().to_string(),
    }
}

/// The table of a session's finished runs, and below it the reasons of those that were not proven.
pub fn summary(events: &[Event]) -> String {
    /// By gateway.
    type Cells<'a> = BTreeMap<String, Vec<(&'a Verdict, u64)>>;
    let mut cells: BTreeMap<String, Cells<'_>> = BTreeMap::new();
    let mut gateways = BTreeSet::new();
    for event in events {
        if let (Some(run), EventKind::RunFinished { verdict, took_ms, .. }) = (&event.run, &event.event) {
            gateways.insert(run.gateway.clone());
            cells.entry(run.scenario.clone()).or_default().entry(run.gateway.clone()).or_default().push((verdict, *took_ms));
        }
    }
    if cells.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(std::iter::once("scenario".to_owned()).chain(gateways.iter().cloned()));
    for (scenario, runs) in &cells {
        let row = gateways.iter().map(|gateway| runs.get(gateway).map_or_else(String::new, |runs| cell(runs)));
        table.add_row(std::iter::once(scenario.clone()).chain(row));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn cell(runs: &[(&Verdict, u64)]) -> String {
    if let [(verdict, took_ms)] = runs {
        return format!("{} {}", verdict.name(), seconds(*took_ms));
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (verdict, _) in runs {
        *counts.entry(verdict.name()).or_default() += 1;
    }
    let mean = runs.iter().map(|(_, took_ms)| took_ms).sum::<u64>() / runs.len().max(1) as u64;
    let counted = counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ");
    format!("{counted} ({} each)", seconds(mean))
}

/// How many runs ended in which verdict: `17 proven, 1 void`.
pub fn totals(events: &[Event]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events {
        if let EventKind::RunFinished { verdict, .. } = &event.event {
            *counts.entry(verdict.name()).or_default() += 1;
        }
    }
    let order = ["proven", "unexpected", "void", "skipped"];
    let counted: Vec<String> = order.iter().filter_map(|name| counts.get(name).map(|count| format!("{count} {name}"))).collect();
    // Interrupted before the first verdict.
    if counted.is_empty() { "no run came to its end".to_owned() } else { counted.join(", ") }
}

/// Runs with these verdicts, for the details that follow the table.
pub fn runs_with(events: &[Event], wanted: impl Fn(&Verdict) -> bool) -> Vec<(&RunId, &Verdict)> {
    events
        .iter()
        .filter_map(|event| match (&event.run, &event.event) {
            (Some(run), EventKind::RunFinished { verdict, .. }) if wanted(verdict) => Some((run, verdict)),
            _ => None,
        })
        .collect()
}

/// For every run that was not proven: why, and what was expected and seen instead.
pub fn details(events: &[Event]) -> Vec<String> {
    let mut lines = Vec::new();
    for (run, verdict) in runs_with(events, |verdict| !matches!(verdict, Verdict::Proven)) {
        lines.push(String::new());
        lines.push(match verdict.reason() {
            Some(reason) => format!("{} {run}: {reason}", verdict_word(verdict)),
            None => format!("{} {run}", verdict_word(verdict)),
        });
        if matches!(verdict, Verdict::Skipped { .. }) {
            continue;
        }
        for event in events.iter().filter(|event| event.run.as_ref() == Some(run)) {
            if let EventKind::Judged { phase, items } = &event.event {
                for item in items.iter().filter(|item| !item.met) {
                    lines.push(format!("  {} {}", phase.name(), item.name));
                    lines.push(format!("    - expected {}", item.expected));
                    lines.push(format!("    + observed {}", item.observed));
                }
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(verdict: Verdict) -> Event {
        let run = RunId { scenario: "a".into(), gateway: "nginx".into(), repeat: 1 };
        Event::of_run(&run, EventKind::RunFinished { verdict, took_ms: 1, phases_ms: BTreeMap::new() })
    }

    #[test]
    fn totals_name_what_occurred_in_the_order_of_interest_and_never_nothing() {
        let void = finished(Verdict::Void { reason: "x".into() });
        assert_eq!(totals(&[void, finished(Verdict::Proven), finished(Verdict::Proven)]), "2 proven, 1 void");
        assert_eq!(totals(&[]), "no run came to its end");
    }
}
