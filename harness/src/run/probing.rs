//! Sending a scenario's probes: the plan goes to `gatelab probe` in a pod of the cluster, records come back as they happen.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fake_backends::journal::Page;
use futures::future::join_all;
use jiff::Timestamp;

use super::emit::Emitter;
use crate::events::EventKind;
use crate::kubernetes::{ExecTarget, Kubernetes, KubernetesError, Running};
use crate::probe::{JOURNAL, Line, Plan, Probe, QUIT, Record, STOP, Summary};
use crate::signature::Phase;

/// Namespace and name of the pod that probes are sent from.
pub const CLIENT_NAMESPACE: &str = "clients";
pub const CLIENT_POD: &str = "client";
/// Progress is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// How long a process waits for the next plan: on the way to real clusters something may forget a connection that nothing
/// is sent on, often after a minute or more.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Bound of the end of a process that was told to go.
const LEFT_WITHIN: Duration = Duration::from_secs(2);
/// What a probe may take on top of what its schedule bounds.
const SLACK: Duration = Duration::from_secs(15);

/// The pod that probes are sent from.
pub fn client() -> ExecTarget {
    ExecTarget { namespace: CLIENT_NAMESPACE.into(), pod: CLIENT_POD.into(), container: None }
}

/// Asks `gatelab probe` in pods to send probes and to read journals. A process that has done so waits for the next thing to do:
/// runs ask for dozens, and each process is an exec through the API server and two starts. In the client's own pod it waits for
/// the next phase, too; what waits in pods under test goes with [`Senders::leave`].
pub struct Senders {
    kubernetes: Kubernetes,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    pod: ExecTarget,
    running: Running,
    since: Instant,
}

impl Senders {
    pub fn new(kubernetes: Kubernetes) -> Self {
        Senders { kubernetes, idle: Mutex::default() }
    }

    pub async fn start(&self, from: &ExecTarget, probes: Vec<Probe>) -> Result<Probing<'_>, KubernetesError> {
        let work = Work::of(probes)?;
        // Not in a pod under test: its container may have ended, with the process that waits there.
        if *from == client()
            && let Some(mut running) = self.waiting(from)
            && running.write_line(&work.plan).await.is_ok()
        {
            return Ok(self.under_way(from, running, &work));
        }
        let running = self.process(from, &work.plan).await?;
        Ok(self.under_way(from, running, &work))
    }

    /// Runs probes that are there for the lab itself (settling, hops): nothing is told on.
    pub async fn quietly(&self, from: &ExecTarget, probes: Vec<Probe>) -> Result<Vec<Record>, KubernetesError> {
        let work = Work::of(probes)?;
        // One that waits may have gone with its container.
        if let Some(mut running) = self.waiting(from)
            && running.write_line(&work.plan).await.is_ok()
            && let Ok(records) = self.under_way(from, running, &work).records().await
        {
            return Ok(records);
        }
        let running = self.process(from, &work.plan).await?;
        self.under_way(from, running, &work).records().await
    }

    /// What the application in this container has written down since.
    pub async fn journal(&self, of: &ExecTarget, since: Timestamp) -> Result<Page, KubernetesError> {
        let question = format!("{JOURNAL} {since}");
        if let Some(mut running) = self.waiting(of)
            && running.write_line(&question).await.is_ok()
            && let Ok(page) = self.answered(of, running).await
        {
            return Ok(page);
        }
        let running = self.process(of, &question).await?;
        self.answered(of, running).await
    }

    async fn answered(&self, of: &ExecTarget, mut running: Running) -> Result<Page, KubernetesError> {
        let line = tokio::time::timeout(SLACK, running.next_line()).await.map_err(|_| KubernetesError::NotReached {
            what: format!("the journal of {of}"),
            waited: SLACK,
            last: "the process that was asked for it said nothing".into(),
        })??;
        let Some(line) = line else { return Err(failed(format!("it ended without the journal of {of}"))) };
        match serde_json::from_str(&line) {
            Ok(Line::Journal(Ok(page))) => {
                self.keep(of.clone(), running);
                Ok(page)
            }
            Ok(Line::Journal(Err(reason))) => Err(failed(format!("the journal of {of} cannot be read: {reason}"))),
            Ok(_) | Err(_) => Err(failed(format!("not the journal of {of}: {line}"))),
        }
    }

    /// Ends what waits in pods under test, and returns when it is gone.
    pub async fn leave(&self) {
        let client = client();
        let left: Vec<Idle> = self.idle().extract_if(.., |idle| idle.pod != client).collect();
        let ends = left.into_iter().map(|mut idle| async move {
            if idle.running.write_line(QUIT).await.is_ok() {
                let _ = tokio::time::timeout(LEFT_WITHIN, idle.running.finish()).await;
            }
        });
        join_all(ends).await;
    }

    /// A new process with its first thing to do.
    async fn process(&self, pod: &ExecTarget, first: &str) -> Result<Running, KubernetesError> {
        let mut running = self.kubernetes.start(pod, &["/gatelab", "probe", "-"]).await?;
        running.write_line(first).await?;
        Ok(running)
    }

    fn under_way(&self, from: &ExecTarget, running: Running, work: &Work) -> Probing<'_> {
        Probing { senders: self, from: from.clone(), running, left: work.probes, bound: work.bound, started: Instant::now() }
    }

    fn waiting(&self, pod: &ExecTarget) -> Option<Running> {
        let mut idle = self.idle();
        idle.retain(|idle| idle.since.elapsed() < IDLE_FOR);
        let place = idle.iter().rposition(|idle| idle.pod == *pod)?;
        Some(idle.remove(place).running)
    }

    fn keep(&self, pod: ExecTarget, running: Running) {
        self.idle().push(Idle { pod, running, since: Instant::now() });
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Probes as a process is told of them.
struct Work {
    plan: String,
    probes: usize,
    bound: Duration,
}

impl Work {
    fn of(probes: Vec<Probe>) -> Result<Self, KubernetesError> {
        let bound = probes.iter().map(|probe| probe.schedule.bound(probe.deadline.duration())).max().unwrap_or_default() + SLACK;
        let count = probes.len();
        let plan = serde_json::to_string(&Plan { probes }).map_err(|error| KubernetesError::Manifest { detail: error.to_string() })?;
        Ok(Work { plan, probes: count, bound })
    }
}

/// Probes under way in one pod.
pub struct Probing<'a> {
    /// Who takes the process back.
    senders: &'a Senders,
    from: ExecTarget,
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

    async fn records(mut self) -> Result<Vec<Record>, KubernetesError> {
        let mut records = Vec::new();
        while let Some(line) = self.next().await? {
            if let Line::Record(record) = line {
                records.push(record);
            }
        }
        self.finish().await?;
        Ok(records)
    }

    /// To be called after the last line: probes that have not come to their end are an error.
    pub async fn finish(self) -> Result<(), KubernetesError> {
        if self.left == 0 {
            self.senders.keep(self.from, self.running);
            return Ok(());
        }
        let (code, stderr) = tokio::time::timeout(SLACK, self.running.finish()).await.map_err(|_| KubernetesError::NotReached {
            what: "the end of the probe process".into(),
            waited: SLACK,
            last: "it closed its output, and still ran".into(),
        })??;
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
            // Only told when asked for.
            Line::Journal(_) => {}
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
