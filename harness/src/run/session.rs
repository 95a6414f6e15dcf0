//! Many runs at once: order, limits, interruption, and the file that everything that happens goes to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateways::GatewayBuild;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::emit::Emitter;
use super::lab::millis;
use super::single::{RunError, RunSettings, run};
use crate::events::{Control, Event, EventFileError, EventKind, EventWriter, RunId, SCHEMA};
use crate::provider::Provider;
use crate::report::Report;
use crate::report::build::Fold;
use crate::scenario::Plan;
use crate::scenario::plan::PlannedProbe;

/// What is to be run.
pub struct Session {
    pub provider: Arc<dyn Provider>,
    /// One for each scenario and gateway.
    pub plans: Vec<Plan>,
    /// By the gateway's name.
    pub builds: BTreeMap<String, GatewayBuild>,
    pub repeat: u32,
    /// Runs at the same time.
    pub jobs: usize,
    pub control: Control,
    pub real_time: bool,
    /// Folder for `events.jsonl`; it exists.
    pub out: PathBuf,
    pub command: Vec<String>,
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct SessionOutcome {
    /// What was done and concluded.
    pub events: Vec<Event>,
    pub report: Report,
    pub interrupted: bool,
    /// The machine cannot run labs: why.
    pub hopeless: Option<RunError>,
    /// The events could not be written; runs were ended then.
    pub unwritten: Option<EventFileError>,
}

struct Ended {
    hopeless: Option<RunError>,
}

/// Runs that have not begun, and what those under way take of the machine.
struct Waiting {
    /// Identity, plan, share of the load.
    runs: VecDeque<(RunId, usize, u32)>,
    jobs: usize,
    load: u32,
    under_way: HashMap<tokio::task::Id, u32>,
}

impl Waiting {
    fn new(session: &Session, order: Vec<(RunId, usize)>) -> Self {
        let share = |plan: usize| session.plans.get(plan).map_or(0, share_of_load);
        Self {
            runs: order.into_iter().map(|(id, plan)| (id, plan, share(plan))).collect(),
            jobs: session.provider.setting().at_once.unwrap_or(usize::MAX).min(session.jobs).max(1),
            load: load_at_once(),
            under_way: HashMap::new(),
        }
    }

    /// The first in order that there is room for: while much load is offered, runs without any go on.
    fn next(&mut self) -> Option<(RunId, usize, u32)> {
        let free = self.load.saturating_sub(self.under_way.values().sum());
        let at = self.runs.iter().position(|(_, _, share)| *share <= free).filter(|_| self.under_way.len() < self.jobs)?;
        self.runs.remove(at)
    }
}

impl Session {
    /// Runs everything. `view` sees every event as it happens. Cancelling ends the runs under way and takes their clusters away.
    ///
    /// # Errors
    /// When the file for events cannot be made.
    pub async fn run(self, cancel: CancellationToken, mut view: impl FnMut(&Event)) -> Result<SessionOutcome, EventFileError> {
        let mut writer = EventWriter::create(&self.out.join("events.jsonl"))?;
        let begun = Instant::now();
        let (events, mut happening) = mpsc::unbounded_channel::<Event>();
        let order = self.order();
        let mut outcome =
            SessionOutcome { events: Vec::new(), report: Report::default(), interrupted: false, hopeless: None, unwritten: None };
        let mut fold = Fold::default();
        let mut keep = |event: Event, outcome: &mut SessionOutcome| {
            view(&event);
            if outcome.unwritten.is_none()
                && let Err(error) = writer.write(&event)
            {
                outcome.unwritten = Some(error);
                cancel.cancel();
            }
            // Evidence is many megabytes a session and in the file already: only what the reports say of it is kept.
            if !event.event.is_evidence() {
                outcome.events.push(event.clone());
            }
            fold.take(event);
        };
        keep(Event::of_session(self.started(&order)), &mut outcome);

        let session = Arc::new(self);
        let mut runs: JoinSet<Ended> = JoinSet::new();
        let mut waiting = Waiting::new(&session, order);
        loop {
            while let Some((id, plan, share)) = waiting.next().filter(|_| !cancel.is_cancelled()) {
                let (session, events, cancel) = (Arc::clone(&session), events.clone(), cancel.clone());
                let run = runs.spawn(async move { session.one(id, plan, events, cancel).await });
                waiting.under_way.insert(run.id(), share);
            }
            tokio::select! {
                biased;
                Some(event) = happening.recv() => keep(event, &mut outcome),
                ended = runs.join_next_with_id() => match ended {
                    None => break,
                    Some(Ok((run, ended))) => {
                        waiting.under_way.remove(&run);
                        if let Some(error) = ended.hopeless {
                            outcome.hopeless.get_or_insert(error);
                            cancel.cancel();
                        }
                    }
                    Some(Err(error)) => {
                        waiting.under_way.remove(&error.id());
                        let message = format!("a run ended in a way it never should: {error}");
                        keep(Event::of_session(EventKind::Error { message, causes: Vec::new(), help: None }), &mut outcome);
                    }
                },
            }
        }
        while let Ok(event) = happening.try_recv() {
            keep(event, &mut outcome);
        }
        outcome.interrupted = cancel.is_cancelled() && outcome.hopeless.is_none() && outcome.unwritten.is_none();
        let interrupted = cancel.is_cancelled();
        keep(Event::of_session(EventKind::SessionFinished { took_ms: millis(begun.elapsed()), interrupted }), &mut outcome);
        outcome.report = fold.finish();
        Ok(outcome)
    }

    async fn one(&self, id: RunId, plan: usize, events: mpsc::UnboundedSender<Event>, cancel: CancellationToken) -> Ended {
        let nothing = Ended { hopeless: None };
        let Some(plan) = self.plans.get(plan) else { return nothing };
        let gateway = self.builds.get(&id.gateway);
        let builds: Vec<GatewayBuild> = self.builds.values().cloned().collect();
        let emit = Emitter::new(id.clone(), events);
        let settings = RunSettings {
            provider: &*self.provider,
            gateway,
            builds: &builds,
            lab_name: lab_name(&id),
            control: self.control,
            real_time: self.real_time,
            within: bound(plan, self.real_time, self.provider.setting().patience),
        };
        tokio::select! {
            biased;
            // Dropping the run drops its cluster, which takes it away.
            () = cancel.cancelled() => nothing,
            (_, hopeless) = run(plan, &settings, &emit) => Ended { hopeless },
        }
    }

    /// Longest first, so that the last one to start is short; runs of one length in random order, so that a fault of the lab that
    /// depends on what runs beside is not hidden by always having the same neighbours.
    fn order(&self) -> Vec<(RunId, usize)> {
        let mut order: Vec<(RunId, usize)> = (1..=self.repeat.max(1))
            .flat_map(|repeat| {
                self.plans
                    .iter()
                    .enumerate()
                    .map(move |(index, plan)| (RunId { scenario: plan.scenario.clone(), gateway: plan.gateway.clone(), repeat }, index))
            })
            .collect();
        order.shuffle(&mut StdRng::seed_from_u64(self.seed));
        order.sort_by_key(|(id, index)| (id.repeat, std::cmp::Reverse(sending_time(&self.plans[*index]).as_secs())));
        order
    }

    fn started(&self, order: &[(RunId, usize)]) -> EventKind {
        let mut runs: Vec<RunId> = order.iter().map(|(id, _)| id.clone()).collect();
        runs.sort();
        EventKind::SessionStarted {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: self.command.clone(),
            seed: self.seed,
            runs,
            machine: machine(),
        }
    }
}

/// Requests a second that all runs together may offer. What all of them need for one request (client, gateway, backend, and the
/// evidence of all three) is a few milliseconds of processor time; beyond that, runs would measure each other.
fn load_at_once() -> u32 {
    u32::try_from(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).unwrap_or(u32::MAX).saturating_mul(60)
}

/// What a plan takes of [`load_at_once`] while it runs: what it offers at its busiest, at most all there is.
fn share_of_load(plan: &Plan) -> u32 {
    let busiest = plan.probes.iter().map(|group| group.iter().map(PlannedProbe::offered_rate).sum::<f64>()).fold(0.0, f64::max);
    (busiest.ceil() as u32).min(load_at_once())
}

/// How long a plan's probes take when everything answers at once; for the order of runs only.
fn sending_time(plan: &Plan) -> Duration {
    plan.probes.iter().map(|group| group.iter().map(|probe| probe.schedule.bound(Duration::ZERO)).max().unwrap_or_default()).sum()
}

/// Three looks, each bounded by its probes' deadlines, and as much again for everything around them.
fn bound(plan: &Plan, real_time: bool, patience: u32) -> Duration {
    let looks = plan.probes.iter().map(|group| group.iter().map(|probe| probe.schedule.bound(probe.deadline)).max().unwrap_or_default());
    let settles = [&plan.setup, &plan.fault, &plan.fix].map(|change| change.settle.within).iter().sum::<Duration>();
    let around = Duration::from_secs(if real_time { 900 } else { 180 });
    looks.sum::<Duration>() * 3 + (settles + around) * patience
}

/// Unique among this user's labs: several sessions may run at once.
fn lab_name(id: &RunId) -> String {
    let readable: String = format!("{}-{}", id.scenario, id.gateway).chars().take(40).collect();
    format!("{}-{}-{}", readable.trim_end_matches('-'), std::process::id(), id.repeat)
}

fn machine() -> BTreeMap<String, String> {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let user = if nix::unistd::geteuid().is_root() { "root" } else { "ordinary user" };
    [
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("cores", Some(cores.to_string())),
        ("user", Some(user.to_owned())),
        ("system", read("/etc/os-release").and_then(|text| os_name(&text))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// os-release(5).
fn os_name(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').to_owned())
}

/// Jobs when none are named: runs mostly wait (for rollouts, time-outs, grace periods), so more of them than cores. With eight
/// for each, two cores are busy nearly all of the time.
pub fn default_jobs() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores * 8).clamp(2, 24)
}

/// Whether a folder can take results at all.
pub fn is_writable(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn runs_without_load_go_on_while_others_wait_for_theirs() {
        let id = |scenario: &str| RunId { scenario: scenario.into(), gateway: "nginx".into(), repeat: 1 };
        let runs = [("a", 60), ("b", 60), ("c", 0), ("d", 0)].map(|(scenario, share)| (id(scenario), 0, share));
        let mut waiting = Waiting { runs: runs.into(), jobs: 2, load: 100, under_way: HashMap::new() };
        let begin = |waiting: &mut Waiting| {
            let (id, _, share) = waiting.next()?;
            let task = tokio::spawn(async {}).id();
            waiting.under_way.insert(task, share);
            Some((id.scenario, task))
        };
        let (first, task) = begin(&mut waiting).unwrap();
        let (second, _) = begin(&mut waiting).unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("a", "c"));
        assert!(begin(&mut waiting).is_none(), "both jobs are taken");
        waiting.under_way.remove(&task);
        assert_eq!(begin(&mut waiting).unwrap().0, "b", "first in order, and its share is free now");
    }
}
