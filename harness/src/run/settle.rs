//! Waiting until a change has taken effect: rollouts over, the gateway in step, what the scenario names seen, and the network
//! given its time. Every wait is bounded and says what it waited for last.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::mirror::{Mirror, Snapshot};
use super::sync;
use crate::kubernetes::rollout::{deployment_pending, pod_pending, terminating, waiting_reason};
use crate::kubernetes::{ExecTarget, Kubernetes, KubernetesError};
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
            let rolled_out = mirror.wait(left(), "a complete rollout", |mirror| pending(&mirror.snapshot())).await;
            if let Err(error) = rolled_out {
                return Err(with_last_words(error, kubernetes, &mirror.snapshot()).await);
            }
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

/// A container that crashes again and again has usually said why.
async fn with_last_words(mut error: KubernetesError, kubernetes: &Kubernetes, snapshot: &Snapshot) -> KubernetesError {
    let crashed = snapshot.of_kind("Pod", None).find_map(crashed_container);
    if let (Some(target), KubernetesError::NotReached { last, .. }) = (crashed, &mut error)
        && let Ok(lines) = kubernetes.last_words(&target).await
        && let Some(line) = telling(&lines)
    {
        last.push_str(&format!("; {target} said before it ended: {line}"));
    }
    error
}

fn crashed_container(pod: &Value) -> Option<ExecTarget> {
    let statuses =
        ["/status/initContainerStatuses", "/status/containerStatuses"].into_iter().filter_map(|list| pod.pointer(list)?.as_array());
    let status =
        statuses.flatten().find(|status| status.pointer("/state/waiting/reason").is_some_and(|reason| reason == "CrashLoopBackOff"))?;
    Some(ExecTarget {
        namespace: pod.pointer("/metadata/namespace")?.as_str()?.to_owned(),
        pod: pod.pointer("/metadata/name")?.as_str()?.to_owned(),
        container: status["name"].as_str().map(str::to_owned),
    })
}

/// The first line that speaks of a failure (what follows it is often a stack trace), else the last one.
fn telling(lines: &[String]) -> Option<&str> {
    const WORDS: [&str; 6] = ["assert failure", "panic", "fatal", "emerg", "critical", "error"];
    let speaks = |word: &str| lines.iter().find(|line| line.to_lowercase().contains(word));
    WORDS.iter().find_map(|word| speaks(word)).or(lines.last()).map(String::as_str)
}

/// What a pod says about why it does not run; the usual reason that a rollout hangs.
fn blocked_pod(snapshot: &Snapshot) -> Option<String> {
    snapshot.of_kind("Pod", None).find_map(|pod| {
        let reason =
            waiting_reason(pod).filter(|reason| !reason.starts_with("ContainerCreating") && !reason.starts_with("PodInitializing"))?;
        Some(format!("Pod {}: {reason}", pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?")))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_cause_is_told_and_not_the_stack_trace_after_it() {
        let said = |lines: &[&str]| telling(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).map(str::to_owned);
        let envoy = ["[info] starting", "[critical][assert] assert failure: inotify_fd_ >= 0.", "[error][envoy_bug] #1", "Aborted"];
        assert_eq!(said(&envoy).unwrap(), envoy[1]);
        assert_eq!(said(&["hello", "bye"]).unwrap(), "bye");
        assert_eq!(said(&[]), None);
    }

    #[test]
    fn the_container_that_crashes_is_found_among_the_others() {
        let pod = json!({ "metadata": { "namespace": "shop", "name": "shop-a" }, "status": { "containerStatuses": [
            { "name": "shop", "state": { "running": {} } }, { "name": "proxy", "state": { "waiting": { "reason": "CrashLoopBackOff" } } }] } });
        assert_eq!(crashed_container(&pod).unwrap().to_string(), "pod shop/shop-a (proxy)");
        assert_eq!(crashed_container(&json!({ "status": { "containerStatuses": [{ "state": { "running": {} } }] } })), None);
    }
}
