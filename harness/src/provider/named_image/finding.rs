//! Whether the cluster can have an image, and what gateway is in it: asked once, before any run, by a pod that looks.

use std::time::Duration;

use futures::future::try_join_all;
use gateways::GATEWAY_NAMESPACE;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, LogParams};
use kube::runtime::wait::await_condition;
use serde_json::json;

use super::guest::Seen;
use super::placing::carry_agent;
use super::{FoundImage, Looked, MissingImage, NamedImage};
use crate::kubernetes::{Kubernetes, KubernetesError};

/// Pause between two looks at the pod: pulling takes seconds.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Container with the named image.
const CONTAINER: &str = "controller";
/// What kubelet says of a container that waits and will go on doing so, whatever it tries again.
const HOPELESS: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
];

#[derive(Debug, thiserror::Error)]
pub enum NamedImageError {
    #[error("the cluster cannot have the image {image} for {gateway}: {reason}: {message}")]
    NotHad { gateway: String, image: String, reason: String, message: String },
    #[error("the image {image} is of no use as {gateway}: {said}")]
    NoUse { gateway: String, image: String, said: String },
    #[error("after {waited:?} the cluster does not have the image {image} for {gateway}: {last}")]
    TooLong { gateway: String, image: String, waited: Duration, last: String },
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
}

impl NamedImageError {
    /// What to do, for people.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            NamedImageError::NotHad { .. } | NamedImageError::TooLong { .. } => {
                "every node must reach the registry (without a password: pull secrets are not made), or have the image already: \
                 `kind load docker-image IMAGE --name CLUSTER` puts one into a cluster that `--retain` kept, `--reuse CLUSTER` runs in \
                 it; without --gateway-image the lab packs its own"
            }
            NamedImageError::NoUse { .. } => {
                "the gateway must be on the image's PATH and not too old (docs/gateways.md); without --gateway-image the lab packs its own"
            }
            NamedImageError::Kubernetes(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// Looks into every image; what was made for it is taken away again. `kubernetes` marks what it makes.
///
/// # Errors
/// With kubelet's own words when an image that the user named cannot be had, or the image's when no gateway is in it.
pub async fn find_all(
    kubernetes: &Kubernetes,
    images: &[NamedImage],
    within: Duration,
    tell: &(dyn Fn(String) + Send + Sync),
) -> Result<Looked, NamedImageError> {
    if images.is_empty() {
        return Ok(Looked::default());
    }
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": GATEWAY_NAMESPACE } });
    kubernetes.apply_all(&[namespace], GATEWAY_NAMESPACE).await?;
    let accounts = Api::<ServiceAccount>::namespaced(kubernetes.client().clone(), GATEWAY_NAMESPACE);
    // Admission refuses pods in a namespace whose `default` ServiceAccount is not there yet.
    let ready = await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some());
    let late = |last: String| KubernetesError::NotReached { what: "a new namespace that takes pods".into(), waited: within, last };
    tokio::time::timeout(within, ready)
        .await
        .map_err(|_| late("it has no ServiceAccount".into()))?
        .map_err(|error| late(error.to_string()))?;
    let looked = try_join_all(images.iter().map(|named| async move {
        tell(format!("looking into the image {} for {}", named.image, named.kind));
        let name = format!("image-{}", named.kind);
        kubernetes.apply_all(&[pod(&name, named)], GATEWAY_NAMESPACE).await?;
        let found = find(kubernetes, &name, named, within).await;
        let pods = Api::<Pod>::namespaced(kubernetes.client().clone(), GATEWAY_NAMESPACE);
        let gone = kubernetes.bounded("deleting the pod that looked", pods.delete(&name, &DeleteParams::default().grace_period(0))).await;
        let found = or_missing(named, found)?;
        gone?;
        Ok::<_, NamedImageError>(found)
    }))
    .await?;
    let mut all = Looked::default();
    for one in looked {
        match one {
            Ok(found) => all.found.push(found),
            Err(missing) => all.missing.push(missing),
        }
    }
    Ok(all)
}

/// An image that nobody named may be missing: runs that need it are skipped.
fn or_missing(named: &NamedImage, found: Result<FoundImage, NamedImageError>) -> Result<Result<FoundImage, MissingImage>, NamedImageError> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(error) if named.by_user || matches!(error, NamedImageError::Kubernetes(_)) => Err(error),
        Err(error) => Ok(Err(MissingImage { kind: named.kind, reason: error.to_string() })),
    }
}

fn pod(name: &str, named: &NamedImage) -> serde_json::Value {
    let mut spec = json!({
        "restartPolicy": "Never", "automountServiceAccountToken": false,
        "containers": [{ "name": CONTAINER, "image": named.image, "imagePullPolicy": "IfNotPresent",
            "command": ["/gatelab", "guest", "look", named.kind.name()], "terminationMessagePolicy": "FallbackToLogsOnError" }],
    });
    carry_agent(&mut spec);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": GATEWAY_NAMESPACE }, "spec": spec })
}

async fn find(kubernetes: &Kubernetes, name: &str, named: &NamedImage, within: Duration) -> Result<FoundImage, NamedImageError> {
    let pods = Api::<Pod>::namespaced(kubernetes.client().clone(), GATEWAY_NAMESPACE);
    let (gateway, image) = (named.kind.to_string(), named.image.clone());
    let deadline = tokio::time::Instant::now() + within;
    loop {
        let pod = kubernetes.bounded("reading the pod that looks into the image", pods.get(name)).await?;
        let last = match state(&pod) {
            State::Over => break,
            State::Hopeless { reason, message } => return Err(NamedImageError::NotHad { gateway, image, reason, message }),
            State::Failed { said } => return Err(NamedImageError::NoUse { gateway, image, said }),
            State::Under(way) => way,
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(NamedImageError::TooLong { gateway, image, waited: within, last });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let log = LogParams { container: Some(CONTAINER.into()), ..LogParams::default() };
    let text = kubernetes.bounded("reading what is in the image", pods.logs(name, &log)).await?;
    let seen: Seen =
        serde_json::from_str(text.trim()).map_err(|_| NamedImageError::NoUse { gateway, image, said: text.trim().to_owned() })?;
    Ok(FoundImage { named: named.clone(), version: seen.version, binary: seen.binary })
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Over,
    /// Where kubelet is, in its words.
    Under(String),
    Hopeless {
        reason: String,
        message: String,
    },
    Failed {
        said: String,
    },
}

fn state(pod: &Pod) -> State {
    let status = pod.status.clone().unwrap_or_default();
    let all = || status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waiting = |one: &ContainerStatus| one.state.as_ref()?.waiting.clone();
    for found in all().filter_map(waiting) {
        let reason = found.reason.unwrap_or_default();
        if HOPELESS.contains(&reason.as_str()) {
            return State::Hopeless { reason, message: found.message.unwrap_or_default().trim().to_owned() };
        }
    }
    if let Some(ended) = all().filter_map(|one| one.state.as_ref()?.terminated.clone()).find(|ended| ended.exit_code != 0) {
        let said = ended.message.or(ended.reason).unwrap_or_default();
        return State::Failed { said: format!("{} (exit code {})", said.trim(), ended.exit_code) };
    }
    match status.phase.as_deref() {
        Some("Succeeded") => State::Over,
        phase => {
            let reasons: Vec<String> = all().filter_map(waiting).filter_map(|waiting| waiting.reason).collect();
            let unscheduled =
                status.conditions.iter().flatten().find(|condition| condition.status == "False" && condition.message.is_some());
            let why = unscheduled.and_then(|condition| condition.message.clone()).unwrap_or_default();
            State::Under(format!("{} {} {why}", phase.unwrap_or("not scheduled"), reasons.join(", ")).trim().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn of(phase: &str, state_of_container: Value) -> State {
        let container =
            json!({ "name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state_of_container });
        state(&serde_json::from_value(json!({ "status": { "phase": phase, "containerStatuses": [container] } })).unwrap())
    }

    #[test]
    fn kubelet_s_words_about_an_image_are_kept() {
        let message = "failed to pull and unpack image \"registry.example/nginx:1\": dial tcp: lookup registry.example: no such host";
        let pulling = |reason: &str| of("Pending", json!({ "waiting": { "reason": reason, "message": message } }));
        for reason in ["ErrImagePull", "ImagePullBackOff"] {
            assert_eq!(pulling(reason), State::Hopeless { reason: reason.into(), message: message.into() });
        }
        assert_eq!(pulling("ContainerCreating"), State::Under("Pending ContainerCreating".into()));
        assert_eq!(of("Succeeded", json!({ "terminated": { "exitCode": 0 } })), State::Over);
        let said = json!({ "terminated": { "exitCode": 1, "message": "error: this image has no nginx\n", "reason": "Error" } });
        assert_eq!(of("Failed", said), State::Failed { said: "error: this image has no nginx (exit code 1)".into() });
        let unstartable =
            json!({ "terminated": { "exitCode": 128, "reason": "StartError", "message": "exec: \"/gatelab\": no such file" } });
        assert!(matches!(of("Failed", unstartable), State::Failed { said } if said.contains("no such file")));
        assert_eq!(state(&Pod::default()), State::Under("not scheduled".into()));
    }

    #[test]
    fn only_an_image_that_somebody_named_must_be_there() {
        let refused = || NamedImageError::NotHad {
            gateway: "ingress-nginx".into(),
            image: "registry.example/controller:1".into(),
            reason: "ErrImagePull".into(),
            message: "no such host".into(),
        };
        let named = |by_user| NamedImage { kind: "ingress-nginx".parse().unwrap(), image: "registry.example/controller:1".into(), by_user };
        assert!(matches!(or_missing(&named(true), Err(refused())), Err(NamedImageError::NotHad { .. })));
        let missing = or_missing(&named(false), Err(refused())).unwrap().unwrap_err();
        assert!(missing.kind.name() == "ingress-nginx" && missing.reason.contains("ErrImagePull: no such host"), "{missing:?}");
    }

    #[test]
    fn the_pod_that_looks_has_the_image_and_the_lab_s_program() {
        let named = NamedImage { kind: "haproxy".parse().unwrap(), image: "haproxy:3".into(), by_user: true };
        let made: Pod = serde_json::from_value(pod("image-haproxy", &named)).unwrap();
        let spec = made.spec.unwrap();
        assert_eq!(spec.containers[0].image.as_deref(), Some("haproxy:3"));
        assert_eq!(spec.containers[0].command.clone().unwrap(), ["/gatelab", "guest", "look", "haproxy"]);
        assert!(spec.init_containers.is_some_and(|containers| containers.len() == 1));
    }
}
