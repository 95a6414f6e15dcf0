//! Sending a scenario's probes: the plan goes to `gatelab probe` in a pod of the cluster, records come back as they happen.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::emit::Emitter;
use crate::events::EventKind;
use crate::kubernetes::{ExecTarget, Kubernetes, KubernetesError, Running};
use crate::probe::{Line, Plan, Probe, QUIT, Record, STOP, Summary};
use crate::signature::Phase;

/// Namespace and name of the pod that probes are sent from.
pub const CLIENT_NAMESPACE: &str = "clients";
pub const CLIENT_POD: &str = "client";
/// Progress is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// How long a process waits for the next plan: on the way to real clusters something may forget a connection that nothing
/// is sent on, often after a minute or more.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// What a probe may take on top of what its schedule bounds.
const SLACK: Duration = Duration::from_secs(15);

/// The pod that probes are sent from.
pub fn client() -> ExecTarget {
    ExecTarget { namespace: CLIENT_NAMESPACE.into(), pod: CLIENT_POD.into(), container: None }
}

/// Sends probes from pods. In the client's own pod a process that has carried out a plan waits for the next one: runs send
/// dozens, and each process is an exec through the API server and a start. In pods under test nothing is left behind.
pub struct Senders {
    kubernetes: Kubernetes,
    idle: Mutex<Vec<(Running, Instant)>>,
}

impl Senders {
    pub fn new(kubernetes: Kubernetes) -> Self {
        Senders { kubernetes, idle: Mutex::default() }
    }

    pub async fn start(&self, from: &ExecTarget, probes: Vec<Probe>) -> Result<Probing<'_>, KubernetesError> {
        let bound = probes.iter().map(|probe| probe.schedule.bound(probe.deadline.duration())).max().unwrap_or_default() + SLACK;
        let left = probes.len();
        let plan = serde_json::to_string(&Plan { probes }).map_err(|error| KubernetesError::Manifest { detail: error.to_string() })?;
        let kept = *from == client();
        if kept
            && let Some(mut running) = self.waiting()
            && running.write_line(&plan).await.is_ok()
        {
            return Ok(Probing { kept: Some(self), running, left, bound, started: Instant::now() });
        }
        let mut running = self.kubernetes.start(from, &["/gatelab", "probe", "-"]).await?;
        running.write_line(&plan).await?;
        if !kept {
            running.write_line(QUIT).await?;
        }
        Ok(Probing { kept: kept.then_some(self), running, left, bound, started: Instant::now() })
    }

    /// Runs probes that are there for the lab itself (settling, hops): nothing is told on.
    pub async fn quietly(&self, from: &ExecTarget, probes: Vec<Probe>) -> Result<Vec<Record>, KubernetesError> {
        let mut probing = self.start(from, probes).await?;
        let mut records = Vec::new();
        while let Some(line) = probing.next().await? {
            if let Line::Record(record) = line {
                records.push(record);
            }
        }
        probing.finish().await?;
        Ok(records)
    }

    fn waiting(&self) -> Option<Running> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE_FOR);
        idle.pop().map(|(running, _)| running)
    }

    fn keep(&self, running: Running) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((running, Instant::now()));
    }
}

/// Probes under way in one pod.
pub struct Probing<'a> {
    /// Who takes the process back, if anybody does.
    kept: Option<&'a Senders>,
    running: Running,
    /// Probes whose summary has not come.
    left: usize,
    bound: Duration,
    started: Instant,
}

impl Probing<'_> {
    /// Ends open-ended probes; what is in flight is still answered.
    pub async fn stop(&mut self) -> Result<(), KubernetesError> {
        self.running.write_line(STOP).await
    }

    /// The next thing that the probes report; `None` at their end. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Line>, KubernetesError> {
        if self.left == 0 {
            return Ok(None);
        }
        let within = self.bound.saturating_sub(self.started.elapsed());
        let line = tokio::time::timeout(within, self.running.next_line()).await.map_err(|_| KubernetesError::NotReached {
            what: "the end of the probes".into(),
            waited: self.bound,
            last: "the probe process still ran".into(),
        })??;
        let Some(line) = line else { return Ok(None) };
        let line = serde_json::from_str(&line).map_err(|error| failed(format!("a line of its output is no record ({error}): {line}")))?;
        self.left -= usize::from(matches!(line, Line::Summary(_)));
        Ok(Some(line))
    }

    /// To be called after the last line: probes that have not come to their end are an error.
    pub async fn finish(self) -> Result<(), KubernetesError> {
        if self.left == 0
            && let Some(senders) = self.kept
        {
            senders.keep(self.running);
            return Ok(());
        }
        let (code, stderr) = tokio::time::timeout(SLACK, self.running.finish()).await.map_err(|_| KubernetesError::NotReached {
            what: "the end of the probe process".into(),
            waited: SLACK,
            last: "its probes were over, and it still ran".into(),
        })??;
        if code == 0 && self.left == 0 {
            return Ok(());
        }
        Err(failed(format!("exit code {code} with {} probes under way: {}", self.left, stderr.trim())))
    }
}

fn failed(detail: String) -> KubernetesError {
    KubernetesError::Exec { command: "gatelab probe -".into(), pod: "the probing pod".into(), detail }
}

/// What has come back so far, told on as events.
pub struct Collected<'a> {
    phase: Phase,
    emit: &'a Emitter,
    pub requests: BTreeMap<String, Vec<Record>>,
    pub summaries: BTreeMap<String, Summary>,
    progress: BTreeMap<String, (u32, u32, Option<Instant>)>,
}

impl<'a> Collected<'a> {
    pub fn new(phase: Phase, emit: &'a Emitter) -> Self {
        Collected { phase, emit, requests: BTreeMap::new(), summaries: BTreeMap::new(), progress: BTreeMap::new() }
    }

    pub fn add(&mut self, line: Line) {
        match line {
            Line::Record(record) => {
                self.tell_progress(&record);
                self.emit.tell(EventKind::Request { phase: self.phase, record: Box::new(record.clone()) });
                self.requests.entry(record.probe.clone()).or_default().push(record);
            }
            Line::Summary(summary) => {
                self.emit.tell(EventKind::ProbeFinished { phase: self.phase, summary: summary.clone() });
                self.summaries.insert(summary.probe.clone(), summary);
            }
        }
    }

    fn tell_progress(&mut self, record: &Record) {
        let failed = record.failed();
        let (done, failures, told) = self.progress.entry(record.probe.clone()).or_default();
        *done += 1;
        *failures += u32::from(failed);
        if told.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY) {
            *told = Some(Instant::now());
            let (done, failed) = (*done, *failures);
            self.emit.tell(EventKind::ProbeProgress { phase: self.phase, probe: record.probe.clone(), done, failed });
        }
    }

    /// Records in the order in which attempts were due, as observations want them.
    pub fn into_requests(self) -> BTreeMap<String, Vec<Record>> {
        let mut requests = self.requests;
        for records in requests.values_mut() {
            records.sort_by_key(|record| (record.due_at, record.sequence));
        }
        requests
    }
}
