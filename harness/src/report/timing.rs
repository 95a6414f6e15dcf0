//! Where a session's time went: by kind of work, by run, and the chain of runs that its end had to wait for.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;
use serde::Serialize;

use crate::events::{Event, EventKind, RunId};
use crate::terminal::live::seconds;

/// Kinds of work, in the order in which a run does them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Cluster up and down, objects installed.
    Cluster,
    /// Rollouts, and the gateway's running configuration.
    Settling,
    /// Requests on their way: what the fault and its time-outs need.
    Requests,
    /// Logs, journals and objects gathered, hops tried.
    Evidence,
}

impl Work {
    fn of(step: &str) -> Self {
        let step = step.split_once(": ").map_or(step, |(_, step)| step);
        match step {
            "gathering evidence" | "trying each hop" => Work::Evidence,
            step if step.starts_with("sending ") => Work::Requests,
            step if step.starts_with("waiting for ") => Work::Settling,
            _ => Work::Cluster,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Work::Cluster => "cluster",
            Work::Settling => "settling",
            Work::Requests => "requests",
            Work::Evidence => "evidence",
        }
    }

    const ALL: [Work; 4] = [Work::Cluster, Work::Settling, Work::Requests, Work::Evidence];
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Timing {
    pub wall_ms: u64,
    /// Of all runs together; over `wall_ms` it is how many were under way on average.
    pub runs_ms: u64,
    /// Most runs under way at the same time.
    pub most_at_once: usize,
    pub work_ms: BTreeMap<Work, u64>,
    /// Longest first.
    pub runs: Vec<RunTiming>,
    /// Ends with the run that ended last; each began when the one before it made room.
    pub critical_path: Vec<RunTiming>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunTiming {
    #[serde(flatten)]
    pub run: RunId,
    /// From the first event of the session.
    pub started_ms: u64,
    pub took_ms: u64,
    pub work_ms: BTreeMap<Work, u64>,
}

impl RunTiming {
    fn ended_ms(&self) -> u64 {
        self.started_ms + self.took_ms
    }
}

/// Runs that did not finish are left out.
pub fn timing(events: &[Event]) -> Timing {
    struct Open {
        started: Timestamp,
        work: Option<(Work, Timestamp)>,
        work_ms: BTreeMap<Work, u64>,
    }
    let first = events.first().map_or(Timestamp::UNIX_EPOCH, |event| event.at);
    let mut open: BTreeMap<&RunId, Open> = BTreeMap::new();
    let mut runs: Vec<RunTiming> = Vec::new();
    for event in events {
        let Some(run) = &event.run else { continue };
        match &event.event {
            EventKind::RunStarted { .. } => {
                open.insert(run, Open { started: event.at, work: None, work_ms: BTreeMap::new() });
            }
            EventKind::Step { step } => {
                if let Some(open) = open.get_mut(run) {
                    let before = open.work.replace((Work::of(step), event.at));
                    if let Some((work, since)) = before {
                        *open.work_ms.entry(work).or_default() += millis(since, event.at);
                    }
                }
            }
            EventKind::RunFinished { .. } => {
                if let Some(mut open) = open.remove(run) {
                    if let Some((work, since)) = open.work {
                        *open.work_ms.entry(work).or_default() += millis(since, event.at);
                    }
                    let (started_ms, took_ms) = (millis(first, open.started), millis(open.started, event.at));
                    runs.push(RunTiming { run: run.clone(), started_ms, took_ms, work_ms: open.work_ms });
                }
            }
            _ => {}
        }
    }
    let mut work_ms = BTreeMap::new();
    for (work, took) in runs.iter().flat_map(|run| &run.work_ms) {
        *work_ms.entry(*work).or_default() += took;
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.took_ms));
    Timing {
        wall_ms: events.last().map_or(0, |last| millis(first, last.at)),
        runs_ms: runs.iter().map(|run| run.took_ms).sum(),
        most_at_once: runs
            .iter()
            .map(|one| runs.iter().filter(|other| other.started_ms <= one.started_ms && one.started_ms < other.ended_ms()).count())
            .max()
            .unwrap_or(0),
        work_ms,
        critical_path: critical_path(&runs),
        runs,
    }
}

/// Backwards from the run that ended last: before each one the run whose end is nearest before its start.
fn critical_path(runs: &[RunTiming]) -> Vec<RunTiming> {
    /// A job that makes room and the run that takes it are apart by scheduling alone.
    const HANDOVER_MS: u64 = 100;
    let mut path: Vec<RunTiming> = Vec::new();
    let mut next = runs.iter().max_by_key(|run| run.ended_ms());
    while let Some(run) = next {
        path.push(run.clone());
        next = runs
            .iter()
            .filter(|other| other.started_ms < run.started_ms && other.ended_ms() <= run.started_ms)
            .max_by_key(|other| other.ended_ms())
            .filter(|other| run.started_ms - other.ended_ms() <= HANDOVER_MS);
    }
    path.reverse();
    path
}

fn millis(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or_default()
}

/// For terminals.
pub fn text(timing: &Timing) -> String {
    const LONGEST: usize = 10;
    let mut text = String::new();
    let runs = timing.runs.len();
    let _ = writeln!(
        text,
        "{} for {runs} runs that took {} together, {} at once",
        seconds(timing.wall_ms),
        seconds(timing.runs_ms),
        timing.most_at_once
    );
    let whole = timing.runs_ms.max(1);
    for work in Work::ALL {
        let took = timing.work_ms.get(&work).copied().unwrap_or_default();
        let _ = writeln!(text, "  {:<9} {:>8}  {:>3} %", work.name(), seconds(took), took * 100 / whole);
    }
    let _ = writeln!(text, "the end had to wait for");
    let mut line = |run: &RunTiming| {
        let work: Vec<String> =
            Work::ALL.iter().filter_map(|work| Some(format!("{} {}", work.name(), seconds(*run.work_ms.get(work)?)))).collect();
        let name = format!("{}/{}", run.run.scenario, run.run.gateway);
        format!("  {name:<44} {:>7} from {:>7}  ({})", seconds(run.took_ms), seconds(run.started_ms), work.join(", "))
    };
    let path: Vec<String> = timing.critical_path.iter().map(&mut line).collect();
    let longest: Vec<String> = timing.runs.iter().take(LONGEST).map(&mut line).collect();
    let _ = writeln!(text, "{}\nlongest runs\n{}", path.join("\n"), longest.join("\n"));
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;
    use crate::events::Verdict;

    fn run(name: &str, from: i64, steps: &[(&str, i64)], to: i64) -> Vec<Event> {
        let run = RunId { scenario: name.into(), gateway: "nginx".into(), repeat: 1 };
        let at = |millis: i64, event| Event {
            at: Timestamp::UNIX_EPOCH.checked_add(millis.milliseconds()).unwrap(),
            run: Some(run.clone()),
            event,
        };
        let started = EventKind::RunStarted {
            title: String::new(),
            level: String::new(),
            tags: Vec::new(),
            provider: String::new(),
            gateway_version: String::new(),
            control: crate::events::Control::Full,
            real_time: false,
        };
        let mut events = vec![at(from, started)];
        events.extend(steps.iter().map(|(step, millis)| at(*millis, EventKind::Step { step: (*step).to_owned() })));
        events.push(at(to, EventKind::RunFinished { verdict: Verdict::Proven, took_ms: 0, phases_ms: BTreeMap::new() }));
        events
    }

    #[test]
    fn work_adds_up_and_the_critical_path_ends_with_the_last_run() {
        let steps = [("cluster up", 0), ("healthy: waiting for the cluster to settle", 100), ("healthy: sending home", 400)];
        let mut events = run("first", 0, &steps, 1000);
        events.extend(run("beside", 0, &[("cluster up", 0)], 900));
        events.extend(run("last", 1001, &[("fault: sending home", 1001), ("fault: trying each hop", 1500)], 2000));
        events.sort_by_key(|event| event.at);
        let timing = timing(&events);
        assert_eq!((timing.wall_ms, timing.runs_ms, timing.most_at_once), (2000, 2899, 2));
        let expected = [(Work::Cluster, 1000), (Work::Settling, 300), (Work::Requests, 1099), (Work::Evidence, 500)];
        assert_eq!(timing.work_ms, BTreeMap::from(expected));
        let path: Vec<&str> = timing.critical_path.iter().map(|run| run.run.scenario.as_str()).collect();
        assert_eq!(path, ["first", "last"]);
    }
}
