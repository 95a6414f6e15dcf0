//! From events to a report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
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

/// All of `events` as a report.
pub fn report(events: impl IntoIterator<Item = Event>) -> Report {
    let mut fold = Fold::default();
    events.into_iter().for_each(|event| fold.take(event));
    fold.finish()
}

/// A report in the making: takes a session's events one at a time, those of several runs mixed, and keeps of a run that has ended what
/// its report says and no more. A session of a thousand runs has gigabytes of events.
#[derive(Default)]
pub struct Fold {
    version: String,
    command: Vec<String>,
    machine: BTreeMap<String, String>,
    /// When the first and the last event were told.
    span: Option<(Timestamp, Timestamp)>,
    /// Wall time in milliseconds and whether it was interrupted; `None` until its end was told.
    finished: Option<(u64, bool)>,
    order: Vec<RunId>,
    runs: BTreeMap<RunId, RunState>,
}

enum RunState {
    UnderWay(RunFold),
    Ended(RunReport),
}

impl Fold {
    pub fn take(&mut self, event: Event) {
        let started = self.span.map_or(event.at, |(started, _)| started);
        self.span = Some((started, event.at));
        let Some(run) = event.run else {
            match event.event {
                EventKind::SessionStarted { version, command, runs, machine, .. } => {
                    (self.version, self.command, self.machine) = (version, command, machine);
                    runs.into_iter().for_each(|run| _ = self.state(run));
                }
                EventKind::SessionFinished { took_ms, interrupted } => self.finished = Some((took_ms, interrupted)),
                _ => {}
            }
            return;
        };
        let ends = matches!(event.event, EventKind::RunFinished { .. });
        let state = self.state(run);
        if let RunState::UnderWay(fold) = state {
            fold.take(event.at, event.event);
            if ends {
                *state = RunState::Ended(std::mem::take(fold).finish());
            }
        }
    }

    fn state(&mut self, run: RunId) -> &mut RunState {
        self.runs.entry(run).or_insert_with_key(|run| {
            self.order.push(run.clone());
            RunState::UnderWay(RunFold::new(run))
        })
    }

    pub fn finish(mut self) -> Report {
        let millis = |(first, last): (Timestamp, Timestamp)| u64::try_from(last.duration_since(first).as_millis()).unwrap_or_default();
        let (took_ms, incomplete) = self.finished.unwrap_or_else(|| (self.span.map(millis).unwrap_or_default(), true));
        let mut report = Report {
            schema: SCHEMA,
            gatelab: self.version,
            command: self.command,
            started_at: self.span.map(|(started, _)| started.to_string()).unwrap_or_default(),
            took_ms,
            incomplete,
            machine: self.machine,
            totals: Totals::default(),
            runs: Vec::new(),
        };
        let states = self.order.iter().filter_map(|run| self.runs.remove(run));
        report.runs = states
            .map(|state| match state {
                RunState::UnderWay(fold) => fold.finish(),
                RunState::Ended(report) => report,
            })
            .collect();
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
}

#[derive(Default)]
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

    fn take(&mut self, at: Timestamp, event: EventKind) {
        match event {
            EventKind::RunStarted { title, level, tags, provider, gateway_version, control, real_time } => {
                let report = &mut self.report;
                (report.title, report.level, report.tags) = (title, level, tags);
                (report.provider, report.gateway_version) = (provider, gateway_version);
                (report.control, report.real_time) = (control, real_time);
            }
            EventKind::PhaseStarted { phase } => {
                // The phase before ends where this one begins.
                for other in self.phases.values_mut().filter(|other| other.ended.is_none()) {
                    other.ended = Some(at);
                }
                self.phase(phase, at).started = Some(at);
            }
            EventKind::Changed { phase, changes } => self.report_of(phase, at).changes.extend(changes),
            EventKind::Settled { phase, took_ms } => self.report_of(phase, at).settled_ms = Some(took_ms),
            EventKind::Request { phase, record } => {
                self.phase(phase, at).records.entry(record.probe.clone()).or_default().push(*record);
            }
            EventKind::GatewayLog { phase, line } => self.phase(phase, at).lines.push(line),
            EventKind::Journal { phase, record } => {
                self.phase(phase, at).journalled.extend(record.request_id);
                *self.report_of(phase, at).journal.entry(record.ended).or_default() += 1;
            }
            EventKind::Timeline { phase, change } => self.phase(phase, at).timeline.push(change),
            EventKind::Hop { phase, hop } => {
                let hop = HopReport { hop: hop.hop.to_string(), tried: hop.tried, worked: hop.worked, seen: hop.seen };
                self.report_of(phase, at).hops.push(hop);
            }
            EventKind::FirstFailingHop { phase, hop } => self.report_of(phase, at).first_failing_hop = Some(hop.to_string()),
            EventKind::Object { phase, object } => {
                self.report_of(phase, at).objects.push(readable(object));
            }
            EventKind::Judged { phase, items } => self.report_of(phase, at).items.extend(items),
            EventKind::Warning { message } => self.report.warnings.push(message),
            EventKind::Error { message, causes, help } => {
                let mut text = std::iter::once(message).chain(causes).collect::<Vec<_>>().join(": ");
                if let Some(help) = help {
                    text.push_str(&format!(" (hint: {help})"));
                }
                self.report.errors.push(text);
            }
            EventKind::RunFinished { verdict, took_ms, phases_ms } => {
                for other in self.phases.values_mut().filter(|other| other.ended.is_none()) {
                    other.ended = Some(at);
                }
                self.report.verdict = Some(verdict);
                self.report.took_ms = took_ms;
                self.phases_ms = phases_ms;
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
            // They are nine tenths of a report, and the first repeat's are there to read.
            if self.report.repeat > 1 && self.report.verdict == Some(Verdict::Proven) {
                report.objects_left_out = report.objects.len();
                report.objects = Vec::new();
            }
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
        objects_left_out: 0,
    }
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
fn readable(mut object: Arc<Value>) -> Arc<Value> {
    const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let metadata = &object["metadata"];
    if metadata.get("managedFields").is_some() || metadata["annotations"].get(LAST_APPLIED).is_some() {
        let metadata = &mut Arc::make_mut(&mut object)["metadata"];
        metadata.as_object_mut().map(|metadata| metadata.remove("managedFields"));
        metadata.get_mut("annotations").and_then(Value::as_object_mut).map(|annotations| annotations.remove(LAST_APPLIED));
    }
    object
}
