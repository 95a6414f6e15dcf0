//! How a container is stopped (`killContainer`): preStop within the grace period, its turn among the pod's containers,
//! SIGTERM, and SIGKILL when the grace period is over.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LifecycleHandler, ObjectReference};
use tokio::sync::watch;
use tokio::time::Instant;

use super::hooks;
use super::probe_actions::Target;
use crate::controllers::events::Recorder;

/// However little is left of the grace period, a container gets this much between SIGTERM and SIGKILL
/// (`minimumGracePeriodInSeconds`).
const MINIMUM: Duration = Duration::from_secs(2);

/// Whom a sidecar waits for.
pub(super) struct Turn {
    pub(super) after: BTreeSet<usize>,
    pub(super) alive: watch::Receiver<BTreeSet<usize>>,
}

pub(super) struct Kill {
    pub(super) target: Target,
    pub(super) hook: Option<LifecycleHandler>,
    /// When the grace period is over; may be brought forward.
    pub(super) deadline: watch::Receiver<Instant>,
    pub(super) turn: Option<Turn>,
    pub(super) recorder: Recorder,
    pub(super) about: ObjectReference,
}

/// Sends the signals; that the container ended is learnt elsewhere, and whoever learns it drops this task.
pub(super) async fn run(mut kill: Kill) {
    if let Some(hook) = kill.hook.take()
        && *kill.deadline.borrow() > Instant::now()
    {
        let mut deadline = kill.deadline.clone();
        let outcome = tokio::select! {
            outcome = hooks::run(&kill.target, &hook) => outcome,
            () = passed(&mut deadline) => {
                tracing::debug!("PreStop hook not completed in grace period");
                Ok(())
            }
        };
        if let Err(error) = outcome {
            kill.recorder.warning(&kill.about, "FailedPreStopHook", format!("PreStopHook failed: {error}"));
        }
    }
    if let Some(turn) = &mut kill.turn {
        let after = std::mem::take(&mut turn.after);
        let mut deadline = kill.deadline.clone();
        tokio::select! {
            _ = turn.alive.wait_for(|alive| alive.is_disjoint(&after)) => {}
            () = passed(&mut deadline) => {}
        }
    }
    let not_before = Instant::now() + MINIMUM;
    signal(&kill.target, libc::SIGTERM).await;
    passed(&mut kill.deadline).await;
    tokio::time::sleep_until(not_before).await;
    signal(&kill.target, libc::SIGKILL).await;
}

async fn signal(target: &Target, signal: i32) {
    if let Err(error) = target.runtime.signal_container(&target.id, signal).await {
        tracing::debug!(%error, signal, "container could not be signalled");
    }
}

/// Resolves when the deadline, as it is by then, has passed.
async fn passed(deadline: &mut watch::Receiver<Instant>) {
    loop {
        let at = *deadline.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(at) => return,
            changed = deadline.changed() => if changed.is_err() {
                // Nobody can change it any more.
                tokio::time::sleep_until(at).await;
                return;
            }
        }
    }
}
