//! Waiting for a cluster, and emptying it between runs. All waits follow watches and are bounded.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{ListParams, LogParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::error::{KindError, tail};
use crate::kubernetes::Kubernetes;
use crate::provider::clearing;

const SYSTEM: &str = "kube-system";
/// Pause between two looks at the components.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A component that has ended so often does not only wait for another one.
const ENDED_TOO_OFTEN: i32 = 3;

/// Returns when all nodes are ready, names are answered, Services have their rules, and pods can be made.
///
/// # Errors
/// When this takes longer than `within`, or a component ends again and again.
pub async fn wait(kubernetes: &Kubernetes, within: Duration) -> Result<(), KindError> {
    bounded("waiting for nodes and DNS", within, async {
        tokio::select! {
            ready = everything(kubernetes) => ready,
            error = broken(kubernetes) => Err(error),
        }
    })
    .await
}

/// Returns when all nodes are ready, as they are again a while after a link was cut: a kubelet may need 45 s to give its old
/// connection up (client-go's HTTP/2 pings).
///
/// # Errors
/// When this takes longer than `within`.
pub async fn nodes(kubernetes: &Kubernetes, within: Duration) -> Result<(), KindError> {
    bounded("waiting for nodes", within, all_nodes(kubernetes)).await
}

async fn all_nodes(kubernetes: &Kubernetes) -> Result<(), KindError> {
    let nodes = Api::<Node>::all(kubernetes.client().clone());
    let list = asked("listing nodes", nodes.list(&ListParams::default()).await)?;
    try_join_all(list.iter().map(|node| until(nodes.clone(), node.name_any(), node_is_ready))).await.map(drop)
}

async fn everything(kubernetes: &Kubernetes) -> Result<(), KindError> {
    let client = kubernetes.client();
    all_nodes(kubernetes).await?;
    // kube-proxy and the pod network: a node is Ready without the one, and counts as Ready when the other has ended later on.
    let agents = Api::<DaemonSet>::namespaced(client.clone(), SYSTEM);
    let list = asked("listing the nodes' agents", agents.list(&ListParams::default()).await)?;
    try_join_all(list.iter().map(|one| until(agents.clone(), one.name_any(), runs_everywhere))).await?;
    until(Api::namespaced(client.clone(), SYSTEM), "coredns".into(), is_available).await?;
    // Admission refuses pods in a namespace whose `default` ServiceAccount is not there yet.
    until(Api::namespaced(client.clone(), "default"), "default".into(), |account: Option<&ServiceAccount>| account.is_some()).await
}

/// Ends when a component of the cluster ends again and again, with what it said.
async fn broken(kubernetes: &Kubernetes) -> KindError {
    let pods = Api::<Pod>::namespaced(kubernetes.client().clone(), SYSTEM);
    loop {
        if let Ok(list) = pods.list(&ListParams::default()).await {
            for pod in list.iter().filter(|pod| restarts(pod) >= ENDED_TOO_OFTEN) {
                let before = LogParams { previous: true, tail_lines: Some(5), ..LogParams::default() };
                if let Ok(said) = pods.logs(&pod.name_any(), &before).await {
                    return KindError::Component { component: pod.name_any(), detail: tail(&said) };
                }
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Of a pod that does not run now.
fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.filter(|container| !container.ready).map(|container| container.restart_count).max().unwrap_or_default()
}

/// The namespaces that are there.
///
/// # Errors
/// When the cluster does not answer.
pub async fn namespaces(kubernetes: &Kubernetes) -> Result<BTreeSet<String>, KindError> {
    let list = Api::<Namespace>::all(kubernetes.client().clone()).list(&ListParams::default()).await;
    Ok(asked("listing namespaces", list)?.iter().map(ResourceExt::name_any).collect())
}

/// Takes away every namespace but those to be kept, and returns when they are gone.
///
/// # Errors
/// When this takes too long.
pub async fn empty(kubernetes: &Kubernetes, keep: &BTreeSet<String>) -> Result<(), KindError> {
    let doomed = namespaces(kubernetes).await?;
    Ok(clearing::remove_namespaces(kubernetes, doomed.difference(keep), 0).await?)
}

async fn until<K>(api: Api<K>, name: String, condition: impl Condition<K>) -> Result<(), KindError>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let waited = await_condition(api, &name, condition).await;
    waited.map(drop).map_err(|error| KindError::Failed {
        what: format!("watching {name}"),
        status: "API".into(),
        detail: error.to_string(),
    })
}

async fn bounded<T>(what: &str, within: Duration, work: impl Future<Output = Result<T, KindError>>) -> Result<T, KindError> {
    let late = |_| KindError::TooLong { what: what.to_owned(), waited: within };
    tokio::time::timeout(within, work).await.map_err(late)?
}

fn asked<T>(what: &str, result: kube::Result<T>) -> Result<T, KindError> {
    result.map_err(|error| KindError::Failed { what: what.to_owned(), status: "API".into(), detail: error.to_string() })
}

fn node_is_ready(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

fn runs_everywhere(agents: Option<&DaemonSet>) -> bool {
    agents
        .and_then(|agents| agents.status.as_ref())
        .is_some_and(|status| status.desired_number_scheduled > 0 && status.number_ready == status.desired_number_scheduled)
}

fn is_available(deployment: Option<&Deployment>) -> bool {
    let conditions = deployment.and_then(|deployment| deployment.status.as_ref()).and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Available" && condition.status == "True"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_condition_that_is_true_counts() {
        let node = |status: &str| {
            serde_json::from_value::<Node>(json!({ "status": { "conditions": [
            { "type": "MemoryPressure", "status": "True" }, { "type": "Ready", "status": status } ] } }))
            .unwrap()
        };
        assert!(node_is_ready(Some(&node("True"))));
        assert!(!node_is_ready(Some(&node("False"))) && !node_is_ready(Some(&node("Unknown"))));
        assert!(!node_is_ready(None) && !node_is_ready(Some(&Node::default())));
        let deployment = |status: &str| {
            serde_json::from_value::<Deployment>(json!({ "spec": { "selector": {}, "template": {} },
            "status": { "conditions": [{ "type": "Available", "status": status }] } }))
            .unwrap()
        };
        let pod = |ready: bool, restarts: i32| {
            let container = json!({ "name": "", "image": "", "imageID": "", "ready": ready, "restartCount": restarts });
            serde_json::from_value::<Pod>(json!({ "status": { "containerStatuses": [container] } })).unwrap()
        };
        assert_eq!([pod(false, 3), pod(true, 3), Pod::default()].map(|pod| restarts(&pod)), [3, 0, 0]);
        let agents = |ready: i32, desired: i32| {
            serde_json::from_value::<DaemonSet>(json!({ "status": { "currentNumberScheduled": desired, "numberMisscheduled": 0,
                "desiredNumberScheduled": desired, "numberReady": ready } }))
            .unwrap()
        };
        assert!(runs_everywhere(Some(&agents(2, 2))) && !runs_everywhere(Some(&agents(1, 2))) && !runs_everywhere(Some(&agents(0, 0))));
        assert!(is_available(Some(&deployment("True"))) && !is_available(Some(&deployment("False"))));
    }
}
