//! Waiting for a cluster, and emptying it between runs. All waits follow watches and are bounded.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::ListParams;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::error::KindError;
use crate::kubernetes::Kubernetes;
use crate::provider::clearing;

/// Returns when all nodes are ready, names are answered, and pods can be made.
///
/// # Errors
/// When this takes longer than `within`.
pub async fn wait(kubernetes: &Kubernetes, within: Duration) -> Result<(), KindError> {
    bounded("waiting for nodes and DNS", within, async {
        let client = kubernetes.client();
        let nodes = Api::<Node>::all(client.clone());
        let list = asked("listing nodes", nodes.list(&ListParams::default()).await)?;
        try_join_all(list.iter().map(|node| until(nodes.clone(), node.name_any(), node_is_ready))).await?;
        until(Api::namespaced(client.clone(), "kube-system"), "coredns".into(), is_available).await?;
        // Admission refuses pods in a namespace whose `default` ServiceAccount is not there yet.
        until(Api::namespaced(client.clone(), "default"), "default".into(), |account: Option<&ServiceAccount>| account.is_some()).await
    })
    .await
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
    Ok(clearing::remove_namespaces(kubernetes, doomed.difference(keep)).await?)
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
        assert!(is_available(Some(&deployment("True"))) && !is_available(Some(&deployment("False"))));
    }
}
