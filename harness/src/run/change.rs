//! Carrying out a change of a scenario: apply, patch, delete, force-delete, links, restart, in this order.

use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::mirror::Snapshot;
use crate::kubernetes::{Kubernetes, KubernetesError, ObjectRef};
use crate::scenario::expect::ObjectName;
use crate::scenario::model::PodNetwork;
use crate::scenario::plan::{PlannedChange, PlannedLink};
use crate::scenario::time::format_duration;

/// Read by the embedded cluster's network controller.
pub const LATENCY_ANNOTATION: &str = "gatelab.dev/link-latency";
pub const LOSS_ANNOTATION: &str = "gatelab.dev/link-loss";
pub const POD_NETWORK_ANNOTATION: &str = "gatelab.dev/pod-network";
/// What `kubectl rollout restart` sets.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// What a change did.
#[derive(Debug, Default)]
pub struct Made {
    /// For people.
    pub done: Vec<String>,
    /// Objects as the API server returned them.
    pub objects: Vec<Value>,
    /// Objects that were deleted, as they were before.
    pub deleted: Vec<Value>,
}

/// Makes the change. `now` tells which nodes run which pods, and what is deleted.
pub async fn make(kubernetes: &Kubernetes, change: &PlannedChange, namespace: &str, now: &Snapshot) -> Result<Made, KubernetesError> {
    let Made { mut done, mut objects, mut deleted } = Made::default();
    for manifest in &change.apply {
        objects.push(kubernetes.apply(manifest, namespace).await?);
        done.push(format!("applied {}", ObjectRef::of(manifest, namespace)?));
    }
    for partial in &change.patch {
        objects.push(kubernetes.patch(partial, namespace).await?);
        done.push(format!("patched {}", ObjectRef::of(partial, namespace)?));
    }
    for name in &change.delete {
        let object = reference(name, namespace)?;
        kubernetes.delete(&object).await?;
        deleted.extend(now.find(&object).cloned());
        done.push(format!("deleted {object}"));
    }
    for name in &change.force_delete {
        let object = reference(name, namespace)?;
        kubernetes.force_delete(&object).await?;
        deleted.extend(now.find(&object).cloned());
        done.push(format!("force deleted {object}"));
    }
    for link in &change.links {
        for (told, node) in set_links(kubernetes, link, namespace, now).await? {
            done.push(told);
            objects.push(node);
        }
    }
    for name in &change.restart {
        let object = reference(name, namespace)?;
        let partial = json!({ "spec": { "template": { "metadata": { "annotations": { RESTARTED_AT: Timestamp::now().to_string() } } } } });
        objects.push(kubernetes.merge(&object, &partial).await?);
        done.push(format!("restarted {object}"));
    }
    Ok(Made { done, objects, deleted })
}

/// Sets the link of every node.
pub async fn set_all_links(
    kubernetes: &Kubernetes,
    latency: Option<std::time::Duration>,
    loss: Option<f64>,
) -> Result<(), KubernetesError> {
    if latency.is_none() && loss.is_none() {
        return Ok(());
    }
    let nodes = kubernetes.list("v1", "Node", None, None).await?;
    let names = nodes.iter().filter_map(|node| node["metadata"]["name"].as_str());
    try_join_all(names.map(|name| set_link(kubernetes, name, latency, loss, None))).await.map(drop)
}

/// For each node what was done, and the node.
async fn set_links(
    kubernetes: &Kubernetes,
    link: &PlannedLink,
    namespace: &str,
    now: &Snapshot,
) -> Result<Vec<(String, Value)>, KubernetesError> {
    let mut nodes: Vec<&str> = now
        .of_kind("Pod", Some(namespace))
        .filter(|pod| link.node_of.iter().all(|(key, value)| pod["metadata"]["labels"][key] == **value))
        .filter_map(|pod| pod["spec"]["nodeName"].as_str())
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    if nodes.is_empty() {
        return Err(KubernetesError::Manifest { detail: format!("a link change selects pods by {:?}, and there are none", link.node_of) });
    }
    let most = link.nodes.map_or(usize::MAX, |most| most as usize);
    let chosen = nodes.into_iter().take(most);
    try_join_all(chosen.map(|name| set_link(kubernetes, name, link.latency, link.loss, link.pod_network))).await
}

async fn set_link(
    kubernetes: &Kubernetes,
    node: &str,
    latency: Option<std::time::Duration>,
    loss: Option<f64>,
    pod_network: Option<PodNetwork>,
) -> Result<(String, Value), KubernetesError> {
    let mut annotations = serde_json::Map::new();
    if let Some(latency) = latency {
        annotations.insert(LATENCY_ANNOTATION.into(), format_duration(latency).into());
    }
    if let Some(loss) = loss {
        annotations.insert(LOSS_ANNOTATION.into(), format!("{loss}%").into());
    }
    if let Some(state) = pod_network {
        annotations.insert(POD_NETWORK_ANNOTATION.into(), state.name().into());
    }
    let object = ObjectRef { api_version: "v1".into(), kind: "Node".into(), namespace: None, name: node.to_owned() };
    let told = annotations.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(" ");
    let node = kubernetes.merge(&object, &json!({ "metadata": { "annotations": annotations } })).await?;
    Ok((format!("link of {object}: {told}"), node))
}

/// `Kind/name` of a kind that Kubernetes itself defines.
pub fn reference(name: &ObjectName, namespace: &str) -> Result<ObjectRef, KubernetesError> {
    let api_version = api_version(&name.kind)
        .ok_or_else(|| KubernetesError::Manifest { detail: format!("`{name}`: the lab knows no kind {} by its name alone", name.kind) })?;
    let object = name.name.clone().ok_or_else(|| KubernetesError::Manifest { detail: format!("`{name}` names no object") })?;
    Ok(ObjectRef {
        api_version: api_version.into(),
        kind: name.kind.clone(),
        namespace: Some(name.namespace.clone().unwrap_or_else(|| namespace.to_owned())),
        name: object,
    })
}

/// The version in which a built-in kind is served by every supported Kubernetes.
pub fn api_version(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Pod"
        | "Service"
        | "ConfigMap"
        | "Secret"
        | "Node"
        | "Namespace"
        | "Event"
        | "Endpoints"
        | "ServiceAccount"
        | "PersistentVolumeClaim" => "v1",
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => "apps/v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "Ingress" | "IngressClass" | "NetworkPolicy" => "networking.k8s.io/v1",
        "PodDisruptionBudget" => "policy/v1",
        "Job" | "CronJob" => "batch/v1",
        "HorizontalPodAutoscaler" => "autoscaling/v2",
        "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => "rbac.authorization.k8s.io/v1",
        _ => return None,
    })
}
