//! The history of StatefulSets and DaemonSets: one ControllerRevision for each template they have had
//! (`pkg/controller/history`). `kubectl rollout history|undo` reads and applies them.

use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::objects::Objects;
use super::pods::{controlled_by, controller_of, key, template_hash};
use crate::store::{DeleteOptions, Fault, Reason, Store};

/// Label of the pods of a revision, and of the revision itself in a DaemonSet.
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";
const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// A name that an unrelated object has taken is tried again with the next number in the hash, this often.
const COLLISIONS: i32 = 100;

/// The revisions of one owner, oldest first, and the one of its present template.
pub(super) struct History {
    pub(super) all: Vec<Arc<ControllerRevision>>,
    pub(super) current: Arc<ControllerRevision>,
}

#[derive(Clone)]
pub(super) struct Revisions {
    objects: Objects<ControllerRevision>,
}

impl Revisions {
    pub(super) fn new(store: &Store) -> Self {
        Self { objects: Objects::new(store) }
    }

    /// The owner's history with `template` as its newest revision: made when it is new, moved to the end when it has
    /// been there before, as an undo does.
    ///
    /// # Errors
    /// What the store refuses.
    pub(super) fn sync<K>(&self, owner: &K, template: &PodTemplateSpec, label: RevisionLabels) -> Result<History, Fault>
    where
        K: k8s_openapi::Resource + Metadata<Ty = ObjectMeta>,
    {
        let mut all = self.of(owner);
        let data = patch_of(template);
        let next = all.last().map_or(0, |revision| revision.revision) + 1;
        let same = all.iter().rposition(|revision| revision.data.as_ref().is_some_and(|known| known.0 == data));
        let current = match same {
            Some(index) if index + 1 == all.len() => all[index].clone(),
            Some(index) => {
                let moved = self.objects.modify(&key(&*all[index]), |revision| revision.revision = next)?;
                all.remove(index);
                all.push(moved.clone());
                moved
            }
            None => {
                let made = self.create(owner, template, &data, next, label)?;
                all.push(made.clone());
                made
            }
        };
        Ok(History { all, current })
    }

    fn of<K>(&self, owner: &K) -> Vec<Arc<ControllerRevision>>
    where
        K: k8s_openapi::Resource + Metadata<Ty = ObjectMeta>,
    {
        let metadata = owner.metadata();
        let mut mine: Vec<_> = self
            .objects
            .list(metadata.namespace.as_deref())
            .into_iter()
            .filter(|revision| controller_of(&revision.metadata).is_some_and(|by| Some(&by.uid) == metadata.uid.as_ref()))
            .collect();
        mine.sort_by_key(|revision| revision.revision);
        mine
    }

    fn create<K>(
        &self,
        owner: &K,
        template: &PodTemplateSpec,
        data: &Value,
        number: i64,
        label: RevisionLabels,
    ) -> Result<Arc<ControllerRevision>, Fault>
    where
        K: k8s_openapi::Resource + Metadata<Ty = ObjectMeta>,
    {
        let metadata = owner.metadata();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let mut refused = None;
        for collision in 0..COLLISIONS {
            let hash = template_hash(data, collision);
            let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
            let name = match label {
                RevisionLabels::StatefulSet => HASH_LABEL,
                RevisionLabels::DaemonSet => REVISION_LABEL,
            };
            labels.insert(name.to_owned(), hash.clone());
            let revision = ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(format!("{}-{hash}", metadata.name.as_deref().unwrap_or_default())),
                    namespace: metadata.namespace.clone(),
                    labels: Some(labels),
                    annotations: metadata.annotations.clone().filter(|annotations| !annotations.is_empty()),
                    owner_references: Some(vec![controlled_by(owner)]),
                    ..ObjectMeta::default()
                },
                data: Some(RawExtension(data.clone())),
                revision: number,
            };
            match self.objects.create(namespace, &revision) {
                Err(fault) if fault.reason == Reason::AlreadyExists => refused = Some(fault),
                outcome => return outcome,
            }
        }
        Err(refused.unwrap_or_else(|| Fault::new(Reason::AlreadyExists, "every name of a controller revision is taken")))
    }

    /// Forgets the oldest revisions beyond `limit` of which no pod is left (`is_live`, by name).
    pub(super) fn truncate(&self, history: &History, limit: Option<i32>, is_live: impl Fn(&ControllerRevision) -> bool) {
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let unused: Vec<_> =
            history.all.iter().filter(|revision| revision.metadata.uid != history.current.metadata.uid && !is_live(revision)).collect();
        for revision in unused.iter().take(unused.len().saturating_sub(limit)) {
            let _ = self.objects.delete(&key(&***revision), &DeleteOptions::default());
        }
    }
}

/// Which label carries the hash: the two kinds of owners differ in it.
#[derive(Clone, Copy, Debug)]
pub(super) enum RevisionLabels {
    StatefulSet,
    DaemonSet,
}

/// What `kubectl rollout undo` sends as a strategic merge patch to go back to the revision.
fn patch_of(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision holds.
pub(super) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0["spec"]["template"].clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The part of a revision's name that is its hash.
pub(super) fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}
