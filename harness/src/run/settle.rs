//! Waiting until a change has taken effect: rollouts over, the gateway in step, what the scenario names seen, and the network
//! given its time. Every wait is bounded and says what it waited for last.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::mirror::{Mirror, Snapshot};
use super::sync;
use crate::kubernetes::rollout::{deployment_pending, pod_pending, terminating, waiting_reason};
use crate::kubernetes::{Kubernetes, KubernetesError};
use crate::scenario::plan::PlannedSettle;

/// Waits for everything that `settle` asks for. `met`: whether the objects show what `settle.until` says; `None` when they
/// do, else what is missing.
pub async fn wait(
    kubernetes: &Kubernetes,
    mirror: &Mirror,
    settle: &PlannedSettle,
    quiet: Duration,
    met: impl Fn(&Snapshot) -> Option<String>,
) -> Result<(), KubernetesError> {
    let deadline = Instant::now() + settle.within;
    let pending = |snapshot: &Snapshot| if settle.terminating { rollouts_pending(snapshot) } else { new_pods_pending(snapshot) };
    let left = || deadline.saturating_duration_since(Instant::now());
    loop {
        if settle.rollouts {
            mirror.wait(left(), "a complete rollout", |mirror| pending(&mirror.snapshot())).await?;
        }
        mirror.wait(left(), "what the scenario waits for", |mirror| met(&mirror.snapshot())).await?;
        be_quiet(mirror, quiet, left()).await?;
        if settle.gateway {
            sync::wait(kubernetes, mirror, left()).await?;
        }
        // The gateway's answer took its time: begin again when objects changed meanwhile.
        let still = mirror.quiet_for() >= quiet && (!settle.rollouts || pending(&mirror.snapshot()).is_none());
        if still && met(&mirror.snapshot()).is_none() {
            return Ok(());
        }
    }
}

/// Waits until no object has changed for `quiet`.
async fn be_quiet(mirror: &Mirror, quiet: Duration, within: Duration) -> Result<(), KubernetesError> {
    let deadline = Instant::now() + within;
    loop {
        let been = mirror.quiet_for();
        if been >= quiet {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(KubernetesError::NotReached {
                what: format!("{} ms without a change of any object", quiet.as_millis()),
                waited: within,
                last: "objects kept changing".into(),
            });
        }
        tokio::time::sleep(quiet.saturating_sub(been)).await;
    }
}

/// Why workloads have not settled; `None` when they have.
pub fn rollouts_pending(snapshot: &Snapshot) -> Option<String> {
    // `kubectl rollout status` does not wait for pods that are on their way out, but they still serve, log and count as objects.
    let leaving = || snapshot.of_kind("Pod", None).find(|pod| terminating(pod));
    let named = |pod: &Value| format!("Pod {} is terminating", pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?"));
    new_pods_pending(snapshot).or_else(|| leaving().map(named))
}

/// The same without a look at pods that are on their way out.
fn new_pods_pending(snapshot: &Snapshot) -> Option<String> {
    let deployment = snapshot.of_kind("Deployment", None).find_map(deployment_pending);
    if let Some(pending) = deployment {
        return Some(match blocked_pod(snapshot) {
            Some(reason) => format!("{pending} ({reason})"),
            None => pending,
        });
    }
    snapshot.of_kind("Pod", None).filter(|pod| !terminating(pod)).find_map(pod_pending)
}

/// What a pod says about why it does not run; the usual reason that a rollout hangs.
fn blocked_pod(snapshot: &Snapshot) -> Option<String> {
    snapshot.of_kind("Pod", None).find_map(|pod| {
        let reason =
            waiting_reason(pod).filter(|reason| !reason.starts_with("ContainerCreating") && !reason.starts_with("PodInitializing"))?;
        Some(format!("Pod {}: {reason}", pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?")))
    })
}
