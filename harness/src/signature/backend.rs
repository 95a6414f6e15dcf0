//! The application's own journal: did the request arrive, and how did it end there?

use std::collections::{BTreeMap, BTreeSet};

use super::client::of;
use super::expectation::{Item, Items};
use super::observation::{JournalRecord, Observations};
use crate::scenario::expect::BackendExpectation;

/// Matches one probe.
pub fn evaluate(probe: &str, expected: &BackendExpectation, observations: &Observations) -> Vec<Item> {
    let mut items = Items::under(format!("backend.{probe}"));
    let sent: BTreeSet<_> = observations.requests.get(probe).into_iter().flatten().map(|record| record.request_id).collect();
    if sent.is_empty() {
        items.add("requests", false, "at least one request".to_owned(), "none was sent".to_owned());
        return items.into_vec();
    }
    let seen: Vec<&JournalRecord> =
        observations.journal.iter().filter(|entry| entry.request_id.is_some_and(|id| sent.contains(&id))).collect();
    if let Some(bound) = &expected.requests_seen {
        let ids: BTreeSet<_> = seen.iter().filter_map(|entry| entry.request_id).collect();
        let observed = of(ids.len(), sent.len());
        items.add("requests-seen", bound.holds(ids.len(), sent.len()), format!("{} reach the application", bound.value), observed);
    }
    for (workload, bound) in &expected.seen_by {
        let ids: BTreeSet<_> = seen.iter().filter(|entry| belongs(&entry.pod, workload)).filter_map(|entry| entry.request_id).collect();
        let observed = of(ids.len(), sent.len());
        items.add(
            &format!("seen-by.{workload}"),
            bound.holds(ids.len(), sent.len()),
            format!("{} reach {workload}", bound.value),
            observed,
        );
    }
    if let Some(wanted) = &expected.path {
        let paths: BTreeSet<&str> = seen.iter().map(|entry| entry.entry["path"].as_str().unwrap_or("?")).collect();
        let observed =
            if paths.is_empty() { "nothing reached it".to_owned() } else { paths.iter().copied().collect::<Vec<_>>().join(", ") };
        items.add("path", !paths.is_empty() && paths.iter().all(|path| wanted.matches(path)), wanted.value.to_string(), observed);
    }
    let named = |entry: &JournalRecord| entry.ended.replace('_', "-");
    for (ended, bound) in &expected.ended {
        let count = seen.iter().filter(|entry| named(entry) == *ended).count();
        items.add(&format!("ended.{ended}"), bound.holds(count, seen.len()), bound.to_string(), summary(&seen));
    }
    let connections: Vec<&JournalRecord> = observations.journal.iter().filter(|entry| entry.request_id.is_none()).collect();
    for (ended, bound) in &expected.connections {
        let count = connections.iter().filter(|entry| named(entry) == *ended).count();
        items.add(&format!("connections.{ended}"), bound.holds(count, connections.len()), bound.to_string(), summary(&connections));
    }
    items.into_vec()
}

/// Names of pods are the workload's and what its controllers append: `stock-5d4f8c7b6-x2x9q` of a Deployment, `stock-0` of a StatefulSet.
fn belongs(pod: &str, workload: &str) -> bool {
    let appended = pod.strip_prefix(workload).and_then(|rest| rest.strip_prefix('-'));
    appended.is_some_and(|rest| rest.split('-').count() <= 2) || pod == workload
}

fn summary(entries: &[&JournalRecord]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        *counts.entry(entry.ended.as_str()).or_default() += 1;
    }
    if counts.is_empty() {
        return "nothing in the journal".to_owned();
    }
    counts.iter().map(|(ended, count)| format!("{ended}: {count}")).collect::<Vec<_>>().join(", ")
}
