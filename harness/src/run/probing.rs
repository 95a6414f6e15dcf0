//! Sending a scenario's probes: the plan goes to `gatelab probe` in a pod of the cluster, records come back as they happen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::emit::Emitter;
use crate::events::EventKind;
use crate::kubernetes::{ExecTarget, Kubernetes, KubernetesError, Running};
use crate::probe::{Line, Plan, Probe, Record, Summary};
use crate::signature::Phase;

/// Namespace and name of the pod that probes are sent from.
pub const CLIENT_NAMESPACE: &str = "clients";
pub const CLIENT_POD: &str = "client";
/// Progress is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// What a probe may take on top of what its schedule bounds.
const SLACK: Duration = Duration::from_secs(15);

/// The pod that probes are sent from.
pub fn client() -> ExecTarget {
    ExecTarget { namespace: CLIENT_NAMESPACE.into(), pod: CLIENT_POD.into(), container: None }
}

/// Probes under way in one pod.
pub struct Probing {
    running: Running,
    bound: Duration,
    started: Instant,
}

impl Probing {
    pub async fn start(kubernetes: &Kubernetes, from: &ExecTarget, probes: Vec<Probe>) -> Result<Self, KubernetesError> {
        let bound = probes.iter().map(|probe| probe.schedule.bound(probe.deadline.duration())).max().unwrap_or_default() + SLACK;
        let plan = serde_json::to_string(&Plan { probes }).map_err(|error| KubernetesError::Manifest { detail: error.to_string() })?;
        let mut running = kubernetes.start(from, &["/gatelab", "probe", "-"]).await?;
        running.write_line(&plan).await?;
        Ok(Probing { running, bound, started: Instant::now() })
    }

    /// Ends open-ended probes; what is in flight is still answered.
    pub async fn stop(&mut self) -> Result<(), KubernetesError> {
        self.running.write_line("stop").await
    }

    /// The next thing that the probe reports; `None` at the end. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Line>, KubernetesError> {
        let left = self.bound.saturating_sub(self.started.elapsed());
        let line = tokio::time::timeout(left, self.running.next_line()).await.map_err(|_| KubernetesError::NotReached {
            what: "the end of the probes".into(),
            waited: self.bound,
            last: "the probe process still ran".into(),
        })??;
        let Some(line) = line else { return Ok(None) };
        serde_json::from_str(&line).map(Some).map_err(|error| KubernetesError::Exec {
            command: "gatelab probe -".into(),
            pod: "the probing pod".into(),
            detail: format!("a line of its output is no record ({error}): {line}"),
        })
    }

    /// To be called after the last line: an exit code other than 0 is an error.
    pub async fn finish(self) -> Result<(), KubernetesError> {
        let (code, stderr) = self.running.finish().await?;
        if code == 0 {
            return Ok(());
        }
        Err(KubernetesError::Exec {
            command: "gatelab probe -".into(),
            pod: "the probing pod".into(),
            detail: format!("exit code {code}: {}", stderr.trim()),
        })
    }
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

/// Runs probes that are there for the lab itself (settling, hops): nothing is told on.
pub async fn quietly(kubernetes: &Kubernetes, from: &ExecTarget, probes: Vec<Probe>) -> Result<Vec<Record>, KubernetesError> {
    let mut probing = Probing::start(kubernetes, from, probes).await?;
    let mut records = Vec::new();
    while let Some(line) = probing.next().await? {
        if let Line::Record(record) = line {
            records.push(record);
        }
    }
    probing.finish().await?;
    Ok(records)
}
