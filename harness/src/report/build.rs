//! From events to a report.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use uuid::Uuid;

use super::model::{
    GapReport, HopReport, LatencyReport, LogReport, PhaseReport, ProbeReport, Report, RequestReport, RunReport, SCHEMA, TimelineReport,
    Totals,
};
use crate::events::{Event, EventKind, RunId, Verdict};
use crate::probe::{Micros, Outcome, Record};
use crate::signature::client::failed;
use crate::signature::maker::maker;
use crate::signature::{GatewayLine, Observations, Phase, TimelineEvent};

/// Folds events; those of several runs may be mixed.
pub fn report(events: &[Event]) -> Report {
    let mut report = Report {
        schema: SCHEMA,
        gatelab: String::new(),
        command: Vec::new(),
        started_at: events.first().map(|event| event.at.to_string()).unwrap_or_default(),
        took_ms: span_ms(events.first(), events.last()),
        incomplete: true,
        machine: BTreeMap::new(),
        totals: Totals::default(),
        runs: Vec::new(),
    };
    let mut runs: BTreeMap<RunId, RunFold> = BTreeMap::new();
    let mut order: Vec<RunId> = Vec::new();
    for event in events {
        match (&event.run, &event.event) {
            (None, EventKind::SessionStarted { version, command, runs: announced, machine, .. }) => {
                report.gatelab.clone_from(version);
                report.command.clone_from(command);
                report.machine.clone_from(machine);
                for run in announced {
                    order.push(run.clone());
                    runs.insert(run.clone(), RunFold::new(run));
                }
            }
            (None, EventKind::SessionFinished { took_ms, interrupted }) => {
                report.took_ms = *took_ms;
                report.incomplete = *interrupted;
            }
            (Some(run), event_kind) => {
                let fold = runs.entry(run.clone()).or_insert_with(|| {
                    order.push(run.clone());
                    RunFold::new(run)
                });
                fold.take(event.at, event_kind);
            }
            (None, _) => {}
        }
    }
    report.runs = order.iter().filter_map(|run| runs.remove(run)).map(RunFold::finish).collect();
    for run in &report.runs {
        let count = match &run.verdict {
            Some(Verdict::Proven) => &mut report.totals.proven,
            Some(Verdict::Unexpected) => &mut report.totals.unexpected,
            Some(Verdict::Void { .. }) => &mut report.totals.void,
            Some(Verdict::Skipped { .. }) => &mut report.totals.skipped,
            None => &mut report.totals.unfinished,
        };
        *count += 1;
    }
    report
}

struct RunFold {
    report: RunReport,
    phases: BTreeMap<Phase, PhaseFold>,
    phases_ms: BTreeMap<String, u64>,
}

#[derive(Default)]
struct PhaseFold {
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    report: Option<PhaseReport>,
    records: BTreeMap<String, Vec<Record>>,
    lines: Vec<GatewayLine>,
    /// Requests that the application wrote down, once for each entry.
    journalled: Vec<Uuid>,
    timeline: Vec<TimelineEvent>,
}

impl RunFold {
    fn new(run: &RunId) -> Self {
        let report = RunReport { scenario: run.scenario.clone(), gateway: run.gateway.clone(), repeat: run.repeat, ..RunReport::default() };
        RunFold { report, phases: BTreeMap::new(), phases_ms: BTreeMap::new() }
    }

    fn take(&mut self, at: Timestamp, event: &EventKind) {
        match event {
            EventKind::RunStarted { title, level, tags, provider, gateway_version, control, real_time } => {
                let report = &mut self.report;
                report.title.clone_from(title);
                report.level.clone_from(level);
                report.tags.clone_from(tags);
                report.provider.clone_from(provider);
                report.gateway_version.clone_from(gateway_version);
                report.control = *control;
                report.real_time = *real_time;
            }
            EventKind::PhaseStarted { phase } => {
                // The phase before ends where this one begins.
                for other in self.phases.values_mut().filter(|other| other.ended.is_none()) {
                    other.ended = Some(at);
                }
                self.phase(*phase, at).started = Some(at);
            }
            EventKind::Changed { phase, changes } => self.report_of(*phase, at).changes.extend(changes.iter().cloned()),
            EventKind::Settled { phase, took_ms } => self.report_of(*phase, at).settled_ms = Some(*took_ms),
            EventKind::Request { phase, record } => {
                self.phase(*phase, at).records.entry(record.probe.clone()).or_default().push((**record).clone());
            }
            EventKind::GatewayLog { phase, line } => self.phase(*phase, at).lines.push(line.clone()),
            EventKind::Journal { phase, record } => {
                self.phase(*phase, at).journalled.extend(record.request_id);
                *self.report_of(*phase, at).journal.entry(record.ended.clone()).or_default() += 1;
            }
            EventKind::Timeline { phase, change } => self.phase(*phase, at).timeline.push(change.clone()),
            EventKind::Hop { phase, hop } => {
                let hop = HopReport { hop: hop.hop.to_string(), tried: hop.tried.clone(), worked: hop.worked, seen: hop.seen.clone() };
                self.report_of(*phase, at).hops.push(hop);
            }
            EventKind::FirstFailingHop { phase, hop } => self.report_of(*phase, at).first_failing_hop = Some(hop.to_string()),
            EventKind::Object { phase, object } => {
                let object = readable(object);
                self.report_of(*phase, at).objects.push(object);
            }
            EventKind::Judged { phase, items } => self.report_of(*phase, at).items.extend(items.iter().cloned()),
            EventKind::Warning { message } => self.report.warnings.push(message.clone()),
            EventKind::Error { message, causes, help } => {
                let mut text = message.clone();
                for cause in causes {
                    text.push_str(": ");
                    text.push_str(cause);
                }
                if let Some(help) = help {
                    text.push_str(" (hint: ");
                    text.push_str(help);
                    text.push(')');
                }
                self.report.errors.push(text);
            }
            EventKind::RunFinished { verdict, took_ms, phases_ms } => {
                for other in self.phases.values_mut().filter(|other| other.ended.is_none()) {
                    other.ended = Some(at);
                }
                self.report.verdict = Some(verdict.clone());
                self.report.took_ms = *took_ms;
                self.phases_ms.clone_from(phases_ms);
            }
            EventKind::SessionStarted { .. }
            | EventKind::Preparing { .. }
            | EventKind::Step { .. }
            | EventKind::ClusterUp { .. }
            | EventKind::ProbeStarted { .. }
            | EventKind::ProbeProgress { .. }
            | EventKind::ProbeFinished { .. }
            | EventKind::SessionFinished { .. } => {}
        }
    }

    fn phase(&mut self, phase: Phase, at: Timestamp) -> &mut PhaseFold {
        let fold = self.phases.entry(phase).or_default();
        fold.started.get_or_insert(at);
        fold
    }

    fn report_of(&mut self, phase: Phase, at: Timestamp) -> &mut PhaseReport {
        self.phase(phase, at).report.get_or_insert_with(|| empty(phase))
    }

    fn finish(mut self) -> RunReport {
        for (phase, fold) in self.phases {
            let mut report = fold.report.unwrap_or_else(|| empty(phase));
            let measured = fold.started.zip(fold.ended).map(|(start, end)| end.duration_since(start).as_millis());
            report.took_ms = self
                .phases_ms
                .get(phase.name())
                .copied()
                .or_else(|| measured.and_then(|millis| u64::try_from(millis).ok()))
                .unwrap_or_default();
            report.timeline = timeline(fold.timeline, &fold.records);
            let mut seen = Observations { requests: fold.records, gateway_log: fold.lines, ..Observations::default() };
            report.gateway_log = log(&seen.gateway_log);
            // Who made an answer is looked up by request: only lines that name one can tell.
            seen.gateway_log.retain(|line| line.request_id.is_some());
            report.probes = seen.requests.iter().map(|(name, records)| probe(name, records, &seen, &fold.journalled)).collect();
            self.report.phases.push(report);
        }
        self.report
    }
}

fn empty(phase: Phase) -> PhaseReport {
    PhaseReport {
        phase,
        took_ms: 0,
        changes: Vec::new(),
        settled_ms: None,
        items: Vec::new(),
        probes: Vec::new(),
        hops: Vec::new(),
        first_failing_hop: None,
        gateway_log: Vec::new(),
        journal: BTreeMap::new(),
        timeline: Vec::new(),
        objects: Vec::new(),
    }
}

fn span_ms(first: Option<&Event>, last: Option<&Event>) -> u64 {
    first.zip(last).and_then(|(first, last)| u64::try_from(last.at.duration_since(first.at).as_millis()).ok()).unwrap_or_default()
}

fn millis(micros: Micros) -> f64 {
    (micros.duration().as_secs_f64() * 1e6).round() / 1e3
}

fn result(record: &Record) -> String {
    match record.status {
        Some(status) if record.outcome == Outcome::Answered => status.to_string(),
        Some(status) => format!("{status} {}", record.outcome.name()),
        None => record.outcome.name().to_owned(),
    }
}

fn probe(name: &str, records: &[Record], seen: &Observations, journalled: &[Uuid]) -> ProbeReport {
    let sent: BTreeSet<Uuid> = records.iter().map(|record| record.request_id).collect();
    let entries = journalled.iter().filter(|id| sent.contains(id)).count();
    let mut report = ProbeReport { name: name.to_owned(), ..ProbeReport::default() };
    report.backend_entries = u32::try_from(entries).unwrap_or(u32::MAX);
    let mut gaps: BTreeMap<Micros, (u32, u32)> = BTreeMap::new();
    for record in records {
        report.attempts += 1;
        report.failed += u32::from(failed(record));
        let result = result(record);
        *report.made_by.entry(result.clone()).or_default().entry(maker(record, seen).name()).or_default() += 1;
        let count = report.results.entry(result.clone()).or_default();
        *count += 1;
        if *count == 1 {
            report.samples.push(sample(record, result));
        }
        if let Some(gap) = record.gap {
            let row = gaps.entry(gap).or_default();
            row.0 += 1;
            row.1 += u32::from(failed(record));
        }
    }
    report.gaps = gaps.into_iter().map(|(gap, (attempts, failed))| GapReport { gap_ms: millis(gap), attempts, failed }).collect();
    report.latency_ms = latency(records);
    report
}

fn sample(record: &Record, result: String) -> RequestReport {
    RequestReport {
        request_id: record.request_id.to_string(),
        at: record.due_at.to_string(),
        result,
        took_ms: millis(record.timings.total),
        headers: record.headers.clone(),
        body: record.body.chars().take(400).collect(),
        errno: record.errno.clone(),
    }
}

fn latency(records: &[Record]) -> LatencyReport {
    let mut totals: Vec<Micros> = records.iter().map(|record| record.timings.total).collect();
    totals.sort();
    // Nearest rank: a value that occurred.
    let quantile = |hundredths: usize| {
        let rank = (totals.len() * hundredths).div_ceil(100).max(1);
        totals.get(rank - 1).copied().map(millis).unwrap_or_default()
    };
    LatencyReport { min: quantile(0), median: quantile(50), p90: quantile(90), p99: quantile(99), max: quantile(100) }
}

/// Lines that differ only in times, ids and addresses are one kind; unread lines come last.
fn log(lines: &[GatewayLine]) -> Vec<LogReport> {
    let mut kinds: Vec<(String, bool, LogReport)> = Vec::new();
    for line in lines {
        let kind = pattern(line);
        match kinds.iter_mut().find(|(other, _, _)| *other == kind) {
            Some((_, _, report)) => report.count += 1,
            None => kinds.push((
                kind,
                line.record.is_none(),
                LogReport { count: 1, line: line.text.clone(), mark: line.record.as_ref().and_then(|record| record.mark.clone()) },
            )),
        }
    }
    kinds.sort_by_key(|(_, unread, _)| *unread);
    kinds.into_iter().map(|(_, _, report)| report).take(40).collect()
}

fn pattern(line: &GatewayLine) -> String {
    match &line.record {
        Some(record) => format!("{}{}", record.kind, record.fields),
        None => line.text.chars().filter(|letter| !letter.is_ascii_hexdigit()).collect(),
    }
}

/// Each change with the failures between it and the next: where errors line up with pods a person sees it at once.
fn timeline(mut events: Vec<TimelineEvent>, records: &BTreeMap<String, Vec<Record>>) -> Vec<TimelineReport> {
    events.sort_by_key(|event| event.at);
    let failures: Vec<Timestamp> = records.values().flatten().filter(|record| failed(record)).map(|record| record.due_at).collect();
    let ends: Vec<Timestamp> = events.iter().skip(1).map(|event| event.at).chain([Timestamp::MAX]).collect();
    events
        .iter()
        .zip(ends)
        .map(|(event, end)| TimelineReport {
            at: event.at.to_string(),
            kind: event.kind.name(),
            object: event.object.clone(),
            failures_after: u32::try_from(failures.iter().filter(|at| (event.at..end).contains(*at)).count()).unwrap_or(u32::MAX),
        })
        .collect()
}

/// Without managedFields and the last applied configuration, as `kubectl get -o yaml` shows it to people.
fn readable(object: &serde_json::Value) -> serde_json::Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(|metadata| metadata.as_object_mut()) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(|annotations| annotations.as_object_mut()) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    object
}
