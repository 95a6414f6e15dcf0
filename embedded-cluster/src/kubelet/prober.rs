//! When a container is probed, and from how many tries a verdict is made (`pkg/kubelet/prober`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Probe};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::probe_actions::{Outcome, Target};
use crate::controllers::events::Recorder;

/// A real kubelet learns of a started container when it next lists the runtime's containers, up to a second later, and
/// its first probe comes then. The lab looks all through that second instead and takes the first success: tries that
/// fail in it are neither counted nor reported.
const FIRST_LOOK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// Counts tries into verdicts: only as many equal ones in a row as the threshold says change the verdict.
#[derive(Debug)]
struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    run: u32,
    verdict: Option<bool>,
}

impl Counter {
    fn new(probe: &Probe) -> Self {
        let at_least_one = |n: Option<i32>, default: u32| n.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default);
        Self {
            success_threshold: at_least_one(probe.success_threshold, 1),
            failure_threshold: at_least_one(probe.failure_threshold, 3),
            last: None,
            run: 0,
            verdict: None,
        }
    }

    /// The new verdict, when this try changes it.
    fn count(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.run += 1;
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        Some(success)
    }
}

/// Probes until dropped; each changed verdict goes to `report`. Startup and liveness end with their first failure (the
/// container is killed for it), startup also with its first success.
pub(super) async fn run(
    kind: Kind,
    probe: Probe,
    target: Target,
    about: ObjectReference,
    recorder: Recorder,
    report: impl Fn(bool) + Send,
) {
    let started = Instant::now();
    let seconds = |n: Option<i32>, default: u64| Duration::from_secs(n.and_then(|n| u64::try_from(n).ok()).unwrap_or(default));
    let period = seconds(probe.period_seconds.filter(|n| *n > 0), 10);
    let mut counter = Counter::new(&probe);
    sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let first = first_look(&probe, &target, started).await;
    let mut ticks = interval_at(Instant::now() + period, period);
    // A try that takes longer than the period delays the next, it does not queue up several (Go's Ticker).
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut outcome = first;
    loop {
        if let Err(message) = &outcome {
            recorder.warning(&about, "Unhealthy", format!("{} probe failed: {message}", kind.name()));
        }
        if let Some(verdict) = counter.count(outcome.is_ok()) {
            report(verdict);
            if kind == Kind::Startup || kind == Kind::Liveness && !verdict {
                return;
            }
        }
        ticks.tick().await;
        outcome = target.probe(&probe).await;
    }
}

async fn first_look(probe: &Probe, target: &Target, started: Instant) -> Outcome {
    // Commands cost a process each, so they are tried less often.
    let mut pause = if probe.exec.is_some() { Duration::from_millis(50) } else { Duration::from_millis(2) };
    loop {
        let outcome = target.probe(probe).await;
        if outcome.is_ok() || started.elapsed() + pause > FIRST_LOOK {
            return outcome;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(success_threshold: i32, failure_threshold: i32, tries: &[bool]) -> Vec<Option<bool>> {
        let probe = Probe { success_threshold: Some(success_threshold), failure_threshold: Some(failure_threshold), ..Probe::default() };
        let mut counter = Counter::new(&probe);
        tries.iter().map(|success| counter.count(*success)).collect()
    }

    #[test]
    fn thresholds_count_tries_in_a_row() {
        assert_eq!(
            verdicts(1, 3, &[true, false, false, true, false, false, false]),
            [Some(true), None, None, None, None, None, Some(false)]
        );
        assert_eq!(verdicts(2, 1, &[true, false, true, true]), [None, Some(false), None, Some(true)]);
    }

    #[test]
    fn defaults_are_kubernetes() {
        let mut counter = Counter::new(&Probe::default());
        assert_eq!([(); 3].map(|()| counter.count(false)), [None, None, Some(false)]);
        assert_eq!(counter.count(true), Some(true));
    }
}
