//! Taking away what a lab has put into a cluster that stays. All waits are bounded.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::kubernetes::{Kubernetes, KubernetesError, MARK, ObjectRef};

/// Bound of emptying a cluster: finalizers and the namespace controller need seconds.
const WITHIN: Duration = Duration::from_secs(120);
/// Where others work a pod that is gone must not run on.
const GUESTS_GRACE: u32 = 1;
/// Pause between two looks at pods that are going.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// A little less than the namespace controller waits before its first look (`namespaceDeletionGracePeriod`, 5 s).
const CONTROLLER_LOOKS: Duration = Duration::from_secs(4);
/// Annotation of a namespace that is going, and has no pods any more.
const EMPTIED: &str = "gatelab.dev/emptied";
/// Kinds without a namespace that a gateway or a scenario may bring.
const CLUSTER_WIDE: [(&str, &str); 9] = [
    ("networking.k8s.io/v1", "IngressClass"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("scheduling.k8s.io/v1", "PriorityClass"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("v1", "PersistentVolume"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
];

/// Takes namespaces away with all that is in them, and returns when they are gone. `grace`: what pods are given to end, in seconds; 0
/// does not even wait for their node, which a busy one takes long to answer.
///
/// # Errors
/// When this takes too long.
pub async fn remove_namespaces(
    kubernetes: &Kubernetes,
    names: impl IntoIterator<Item = &String>,
    grace: u32,
) -> Result<(), KubernetesError> {
    let work = try_join_all(names.into_iter().map(|name| remove(kubernetes, name, grace)));
    let late = |_| KubernetesError::NotReached {
        what: "the end of the namespaces that the lab made".into(),
        waited: WITHIN,
        last: "the cluster was still deleting what is in them".into(),
    };
    tokio::time::timeout(WITHIN, work).await.map_err(late)?.map(drop)
}

/// Takes away everything that was marked: namespaces, and objects without any.
///
/// # Errors
/// When the cluster does not let it go.
pub async fn remove_marked(kubernetes: &Kubernetes, mark: &str) -> Result<(), KubernetesError> {
    let label = format!("{MARK}={mark}");
    let namespaces = kubernetes.list("v1", "Namespace", None, Some(&label)).await?;
    let names: Vec<String> = namespaces.iter().filter_map(name_of).collect();
    remove_namespaces(kubernetes, &names, GUESTS_GRACE).await?;
    for (api_version, kind) in CLUSTER_WIDE {
        let objects = match kubernetes.list(api_version, kind, None, Some(&label)).await {
            Ok(objects) => objects,
            // What is not served cannot be there.
            Err(KubernetesError::KindNotServed { .. }) => continue,
            Err(error) => return Err(error),
        };
        for name in objects.iter().filter_map(name_of) {
            let object = ObjectRef { api_version: api_version.into(), kind: kind.into(), namespace: None, name };
            match kubernetes.delete(&object).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The values of the mark that are in the cluster.
///
/// # Errors
/// When the cluster does not answer.
pub async fn marks(kubernetes: &Kubernetes) -> Result<BTreeSet<String>, KubernetesError> {
    let namespaces = kubernetes.list("v1", "Namespace", None, Some(MARK)).await?;
    Ok(namespaces.iter().filter_map(|namespace| namespace["metadata"]["labels"][MARK].as_str()).map(str::to_owned).collect())
}

fn name_of(object: &Value) -> Option<String> {
    object["metadata"]["name"].as_str().map(str::to_owned)
}

async fn remove(kubernetes: &Kubernetes, name: &str, grace: u32) -> Result<(), KubernetesError> {
    let client: &Client = kubernetes.client();
    let namespaces = Api::<Namespace>::all(client.clone());
    let action = format!("deleting namespace {name}");
    gone(kubernetes.bounded(&action, namespaces.delete(name, &DeleteParams::default())).await.map(drop))?;
    // The namespace controller gives pods their own grace period, which for a gateway is minutes. Nobody needs them any more.
    let pods = Api::<Pod>::namespaced(client.clone(), name);
    for pod in kubernetes.bounded("listing pods", pods.list(&ListParams::default())).await? {
        let at_once = DeleteParams { grace_period_seconds: Some(grace), ..DeleteParams::default() };
        gone(kubernetes.bounded(&action, pods.delete(&pod.name_any(), &at_once)).await.map(drop))?;
    }
    let deleted = tokio::time::Instant::now();
    while !kubernetes.bounded("listing pods", pods.list(&ListParams::default())).await?.items.is_empty() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    if deleted.elapsed() >= CONTROLLER_LOOKS {
        // The controller found pods at its first look, and comes back after half of the longest grace period that they were written with,
        // whatever they were given: two and a half minutes with a gateway. Any change of the namespace makes it look again.
        let touched = Patch::Merge(json!({ "metadata": { "annotations": { EMPTIED: "true" } } }));
        gone(kubernetes.bounded(&action, namespaces.patch(name, &PatchParams::default(), &touched)).await.map(drop))?;
    }
    let ended = await_condition(namespaces, name, |namespace: Option<&Namespace>| namespace.is_none()).await;
    let lost = |error: kube::runtime::wait::Error| KubernetesError::NotReached {
        what: format!("the end of namespace {name}"),
        waited: WITHIN,
        last: error.to_string(),
    };
    ended.map(drop).map_err(lost)
}

/// What was to be deleted may have gone by itself.
fn gone(result: Result<(), KubernetesError>) -> Result<(), KubernetesError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
