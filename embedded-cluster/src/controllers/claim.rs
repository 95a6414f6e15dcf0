//! Which pods belong to a workload (`PodControllerRefManager`): those it made, those without controller that match and
//! are taken over, less those that no longer match and are let go of.

use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::objects::{Key, Objects, key_of};
use super::pods::{controlled_by, controller_of, is_active, key};
use super::reconcile::Trigger;
use super::selectors;
use crate::store::Store;

/// The owner's pods among those that `counts`; terminating ones are never taken over.
pub(super) fn claim<K>(pods: &Objects<Pod>, owner: &K, selector: &LabelSelector, counts: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>>
where
    K: k8s_openapi::Resource + Metadata<Ty = ObjectMeta>,
{
    let metadata = owner.metadata();
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let leaving = metadata.deletion_timestamp.is_some();
    let mut claimed = Vec::new();
    for pod in pods.list(metadata.namespace.as_deref()) {
        if !counts(&pod) {
            continue;
        }
        let matches = selectors::matches(selector, pod.metadata.labels.as_ref());
        match controller_of(&pod.metadata) {
            Some(by) if by.uid == uid && matches => claimed.push(pod),
            Some(by) if by.uid == uid && !leaving => {
                let _ = pods.modify(&key(&*pod), |pod| {
                    pod.metadata.owner_references.iter_mut().for_each(|owners| owners.retain(|owner| owner.uid != uid));
                });
            }
            None if matches && !leaving && is_active(&pod) => {
                let adopted = pods.modify(&key(&*pod), |pod| {
                    pod.metadata.owner_references.get_or_insert_default().push(controlled_by(owner));
                });
                claimed.extend(adopted);
            }
            _ => {}
        }
    }
    claimed
}

/// A pod without controller may be one that an owner of this type should take over.
pub(super) fn orphans<K>(store: &Store, pods: &Objects<Pod>) -> Trigger
where
    K: k8s_openapi::Resource + Metadata<Ty = ObjectMeta> + serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
    K::Scope: crate::store::KnownScope,
{
    let owners: Objects<K> = Objects::new(store);
    Trigger::new(pods.resource(), move |pod| {
        let owned = pod["metadata"]["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty());
        if owned { Vec::new() } else { owners.list(Some(&key_of(pod).0)).iter().map(|owner| key(&**owner)).collect::<Vec<Key>>() }
    })
}

/// A pod of `owner` as its template says, without a name yet.
pub(super) fn pod_of<K>(owner: &K, template: &PodTemplateSpec) -> Pod
where
    K: k8s_openapi::Resource + Metadata<Ty = ObjectMeta>,
{
    let mut metadata = template.metadata.clone().unwrap_or_default();
    metadata.namespace.clone_from(&owner.metadata().namespace);
    metadata.owner_references = Some(vec![controlled_by(owner)]);
    Pod { metadata, spec: template.spec.clone(), status: None }
}
