//! What a cluster of several nodes needs beside Kubernetes itself: links whose delay and loss can be set, and the application's
//! pods on other nodes than the gateway, as the embedded cluster places them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::error::KindError;
use crate::kubernetes::Kubernetes;
use crate::run::change::{LATENCY_ANNOTATION, LOSS_ANNOTATION, POD_NETWORK_ANNOTATION};

const MANIFESTS: &str = include_str!("../../../../kind-config/links.yaml");
const NAME: &str = "gatelab-links";
const NAMESPACE: &str = "kube-system";
/// Bound of the time until the agents have said whether they can do it; their image is in the nodes already.
const WITHIN: Duration = Duration::from_secs(60);
/// Of the node that the gateway runs on. The scheduler's weight of it (3) is more than that of spreading a Deployment (2).
const TAINT: &str = "gatelab.dev/gateway";

/// Starts the agents. Returns why links cannot be set, if they cannot.
///
/// # Errors
/// When the cluster does not answer.
pub async fn install(kubernetes: &Kubernetes) -> Result<Option<String>, KindError> {
    let manifests: Vec<Value> = MANIFESTS.split("\n---\n").map(serde_saphyr::from_str).collect::<Result<_, _>>().map_err(|error| {
        KindError::Failed { what: "reading kind-config/links.yaml".into(), status: "built in".into(), detail: error.to_string() }
    })?;
    kubernetes.apply_all(&manifests, NAMESPACE).await?;
    let agents = Api::<DaemonSet>::namespaced(kubernetes.client().clone(), NAMESPACE);
    let pods = Api::<Pod>::namespaced(kubernetes.client().clone(), NAMESPACE);
    let ready = await_condition(agents, NAME, |agents: Option<&DaemonSet>| agents.is_some_and(is_ready));
    let refused = async {
        let list = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
        loop {
            if let Some(reason) = pods.list(&list).await.ok().and_then(|pods| pods.iter().find_map(refusal)) {
                return reason;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    Ok(tokio::select! {
        ready = tokio::time::timeout(WITHIN, ready) => match ready {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("the agents of the links cannot be followed: {error}")),
            Err(_) => Some(format!("the agents of the links were not ready within {WITHIN:?}")),
        },
        reason = refused => Some(reason),
    })
}

fn is_ready(agents: &DaemonSet) -> bool {
    agents.status.as_ref().is_some_and(|status| {
        status.observed_generation == agents.metadata.generation
            && status.desired_number_scheduled > 0
            && status.number_ready == status.desired_number_scheduled
    })
}

/// What an agent said before it ended.
fn refusal(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.as_ref()?.terminated.as_ref()?.message.clone();
    statuses.iter().find_map(|status| ended(&status.state).or_else(|| ended(&status.last_state))).map(|said| said.trim().to_owned())
}

/// Keeps pods that may run anywhere off the node that the gateway will run on, as long as there is another.
///
/// # Errors
/// When the cluster does not answer.
pub async fn keep_off(kubernetes: &Kubernetes, gateway_node: &str) -> Result<(), KindError> {
    let taint = json!({ "spec": { "taints": [{ "key": TAINT, "effect": "PreferNoSchedule" }] } });
    patch(kubernetes, gateway_node, &taint).await
}

/// Nodes that take ordinary pods, in the order of their names.
///
/// # Errors
/// When the cluster does not answer.
pub async fn taking_pods(kubernetes: &Kubernetes) -> Result<Vec<String>, KindError> {
    let nodes = kubernetes.bounded("listing nodes", nodes(kubernetes).list(&ListParams::default())).await?;
    let closed = |node: &Node| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        taints.is_some_and(|taints| taints.iter().any(|taint| taint.effect == "NoSchedule"))
    };
    let mut names: Vec<String> = nodes.iter().filter(|node| !closed(node)).map(ResourceExt::name_any).collect();
    names.sort();
    Ok(names)
}

/// All links as good as new: what the run before has set is not for the next. Returns whether anything was set.
///
/// # Errors
/// When the cluster does not answer.
pub async fn reset(kubernetes: &Kubernetes) -> Result<bool, KindError> {
    const ANNOTATIONS: [&str; 3] = [LATENCY_ANNOTATION, LOSS_ANNOTATION, POD_NETWORK_ANNOTATION];
    let none = json!({ "metadata": { "annotations": ANNOTATIONS.map(|name| (name, None::<&str>)).into_iter().collect::<BTreeMap<_, _>>() } });
    let list = kubernetes.bounded("listing nodes", nodes(kubernetes).list(&ListParams::default())).await?;
    let set = list.iter().filter(|node| ANNOTATIONS.iter().any(|name| node.annotations().contains_key(*name)));
    let changed = set.map(async |node| patch(kubernetes, &node.name_any(), &none).await);
    Ok(!try_join_all(changed).await?.is_empty())
}

fn nodes(kubernetes: &Kubernetes) -> Api<Node> {
    Api::all(kubernetes.client().clone())
}

async fn patch(kubernetes: &Kubernetes, node: &str, partial: &Value) -> Result<(), KindError> {
    let action = format!("changing node {node}");
    Ok(kubernetes.bounded(action, nodes(kubernetes).patch(node, &PatchParams::default(), &Patch::Merge(partial))).await.map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_cannot_do_its_work_says_why_and_one_that_runs_says_nothing() {
        let pod = |status: Value| -> Pod { serde_json::from_value(json!({ "status": { "containerStatuses": [status] } })).unwrap() };
        let base = json!({ "name": "links", "image": "", "imageID": "", "ready": false, "restartCount": 1 });
        let mut ended = base.clone();
        ended["lastState"] = json!({ "terminated": { "exitCode": 1, "message": "this kernel cannot hold packets up\n" } });
        assert_eq!(refusal(&pod(ended)).as_deref(), Some("this kernel cannot hold packets up"));
        assert_eq!(refusal(&pod(base)), None);
    }

    #[test]
    fn agents_are_ready_on_all_nodes_or_not_at_all() {
        let agents = |ready: i32, desired: i32| -> DaemonSet {
            serde_json::from_value(json!({ "metadata": { "generation": 1 }, "status": { "observedGeneration": 1,
                "currentNumberScheduled": desired, "numberMisscheduled": 0, "desiredNumberScheduled": desired, "numberReady": ready } }))
            .unwrap()
        };
        assert!(is_ready(&agents(3, 3)) && !is_ready(&agents(2, 3)) && !is_ready(&agents(0, 0)));
    }
}
