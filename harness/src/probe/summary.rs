//! Adds the attempts of a probe up while it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::record::{GapSummary, Latency, Micros, Outcome, Record, Summary};

/// Longest latency that is told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_secs(3600);

pub struct Tally {
    summary: Summary,
    gaps: BTreeMap<Micros, GapSummary>,
    /// Microseconds.
    latency: Option<Histogram<u64>>,
}

impl Tally {
    pub fn new(probe: &str) -> Self {
        let summary = Summary { probe: probe.to_owned(), ..Summary::default() };
        // Three significant digits of every value, as wrk2 and hey report; the bounds are valid by construction.
        let latency = Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3).ok();
        Tally { summary, gaps: BTreeMap::new(), latency }
    }

    pub fn add(&mut self, record: &Record) {
        self.summary.attempts += 1;
        let key = match (record.outcome, record.status) {
            (Outcome::Answered, Some(status)) => status.to_string(),
            (outcome, _) => outcome.name().to_owned(),
        };
        *self.summary.results.entry(key).or_default() += 1;
        if let Some(gap) = record.gap {
            let entry = self.gaps.entry(gap).or_insert(GapSummary { gap, attempts: 0, failed: 0 });
            entry.attempts += 1;
            entry.failed += u32::from(failed(record));
        }
        if let Some(latency) = &mut self.latency {
            latency.saturating_record(record.timings.total.0.max(1));
        }
    }

    pub fn finish(mut self, connections: u32) -> Summary {
        self.summary.connections = connections;
        self.summary.gaps = self.gaps.into_values().collect();
        if let Some(latency) = self.latency.filter(|latency| !latency.is_empty()) {
            let at = |quantile| Micros(latency.value_at_quantile(quantile));
            self.summary.latency =
                Latency { min: Micros(latency.min()), median: at(0.5), p90: at(0.9), p99: at(0.99), max: Micros(latency.max()) };
        }
        self.summary
    }
}

fn failed(record: &Record) -> bool {
    record.outcome != Outcome::Answered || record.status.is_some_and(|status| status >= 500)
}
