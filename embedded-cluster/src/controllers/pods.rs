//! What controllers ask about a pod (`k8s.io/kubernetes/pkg/api/v1/pod`).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sha2::{Digest, Sha256};

use super::objects::Key;

/// Namespace and name of an object.
pub(crate) fn key<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Key {
    let metadata = object.metadata();
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Ended for good: its containers will not run again.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Counts towards the replicas of its controller.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// Ready for at least `min_ready`; otherwise how long it still takes, if it is ready at all.
pub(crate) fn availability(pod: &Pod, min_ready: Duration, now: Timestamp) -> Result<(), Option<Duration>> {
    let Some(ready) = condition(pod, "Ready").filter(|c| c.status == "True") else { return Err(None) };
    if min_ready.is_zero() {
        return Ok(());
    }
    let Some(since) = &ready.last_transition_time else { return Err(None) };
    let passed = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
    if passed >= min_ready { Ok(()) } else { Err(Some(min_ready.saturating_sub(passed))) }
}

pub(crate) fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The reference by which `owner` manages an object it made.
pub(crate) fn controlled_by<K>(owner: &K) -> OwnerReference
where
    K: k8s_openapi::Resource + Metadata<Ty = ObjectMeta>,
{
    let metadata = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Letters and digits that cannot make words or be misread (`k8s.io/apimachinery/pkg/util/rand`).
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// `<prefix><5 random characters>`, as generateName makes names.
pub(crate) fn generated_name(prefix: &str) -> String {
    let prefix: String = prefix.chars().take(58).collect();
    let suffix: String = (0..5).map(|_| char::from(SAFE[rand::random_range(0..SAFE.len())])).collect();
    format!("{prefix}{suffix}")
}

/// A short hash of a template in the shape of Kubernetes' `pod-template-hash`.
pub(crate) fn template_hash(template: &serde_json::Value, collision_count: i32) -> String {
    let mut digest = Sha256::new();
    digest.update(template.to_string());
    if collision_count > 0 {
        digest.update(collision_count.to_le_bytes());
    }
    let bytes = digest.finalize();
    let number = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    number.to_string().bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect()
}
