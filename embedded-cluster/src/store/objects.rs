//! Objects by resource, namespace and name; every write takes the next resource version and is told to the watchers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::Value;

use super::rules::{
    after, as_go_writes_it, conflict, grace_period, group_suffix, has_generation, is_claim, is_deleted, is_held, is_namespace, is_pod,
    is_quota, is_respecified, is_service, keep_system_metadata, metadata_str, not_found, now, pod_grace, resource_key,
    set_propagation_finalizers,
};
use super::shard::{Change, Changes, ResourceKey, Shard};
use super::{Resource, admission, allocation, defaults, limit_range, quota};

/// Why the store refused, in the vocabulary of `metav1.StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NotFound,
    AlreadyExists,
    Conflict,
    Invalid,
    Expired,
    BadRequest,
    Forbidden,
}

/// A refused operation; the API server renders it as a `Status` object.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub reason: Reason,
    pub message: String,
}

impl Fault {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// One change, as a watch reports it.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Arc<Value>),
    Modified(Arc<Value>),
    Deleted(Arc<Value>),
}

impl WatchEvent {
    pub fn object(&self) -> &Arc<Value> {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => object,
        }
    }
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug)]
pub enum WatchStart {
    /// `Added` for everything there is, then changes.
    FromNothing,
    /// Only changes after this resource version.
    After(u64),
}

/// The objects of a list and the version at which it was read.
#[derive(Clone, Debug)]
pub struct List {
    pub items: Vec<Arc<Value>>,
    pub resource_version: u64,
}

/// What a delete asks for.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds; `None` takes the object's own default (pods: `spec.terminationGracePeriodSeconds`, others: 0).
    pub grace_period_seconds: Option<i64>,
    /// Refuse with Conflict when the object's uid differs.
    pub uid: Option<String>,
    /// Refuse with Conflict when the object's resourceVersion differs.
    pub resource_version: Option<String>,
    /// `Background` (default), `Foreground` or `Orphan`.
    pub propagation_policy: Option<String>,
}

#[derive(Default)]
struct State {
    version: u64,
    shards: BTreeMap<ResourceKey, Shard>,
}

/// Handle to the one store of a cluster; clones share it.
#[derive(Clone, Default)]
pub struct Store {
    state: Arc<Mutex<State>>,
}

impl Store {
    /// Stores a new object: fills in defaults as kube-apiserver does, allocates Service addresses and ports, gives uid,
    /// creationTimestamp and resourceVersion. `metadata.name` must be set.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, `Invalid` without a name or when a Service address cannot be had,
    /// `Forbidden` in a namespace that is being deleted.
    pub fn create(&self, resource: &Resource, namespace: Option<&str>, object: Value) -> Result<Arc<Value>, Fault> {
        self.create_or_try(resource, namespace, object, false)
    }

    /// As [`Store::create`], but with `dry_run` nothing is stored: the result is what would have been.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn create_or_try(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Arc<Value>, Fault> {
        let name = metadata_str(&object, "name").ok_or_else(|| Fault::new(Reason::Invalid, "metadata.name: Required value"))?;
        let key = (namespace.unwrap_or_default().to_owned(), name.clone());
        let mut state = self.lock();
        if state.table(resource).contains_key(&key) {
            return Err(Fault::new(
                Reason::AlreadyExists,
                format!("{}{} \"{name}\" already exists", resource.plural, group_suffix(resource)),
            ));
        }
        if let Some(namespace) = namespace
            && state.namespace_is_terminating(namespace)
        {
            return Err(Fault::new(
                Reason::Forbidden,
                format!(
                    "{}{} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
                    resource.plural,
                    group_suffix(resource)
                ),
            ));
        }
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.clone().into();
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = namespace.into();
        }
        defaults::apply(resource, &mut object);
        if is_pod(resource) {
            let classes = ("scheduling.k8s.io".to_owned(), "priorityclasses".to_owned());
            let classes = state.shards.get(&classes).map(|shard| shard.objects(None)).unwrap_or_default();
            admission::pod(&mut object, &classes)?;
            let accounts = (String::new(), "serviceaccounts".to_owned());
            let accounts = state.shards.get(&accounts).map(|shard| shard.objects(namespace)).unwrap_or_default();
            admission::api_access(&mut object, &accounts);
        }
        if is_pod(resource) || is_claim(resource) {
            limit_range::admit(&state.limit_ranges(&key.0), resource, &mut object)?;
        }
        if is_service(resource) {
            allocation::allocate(state.table(resource), &mut object)?;
        }
        let metadata = &mut object["metadata"];
        metadata["uid"] = uuid::Uuid::new_v4().to_string().into();
        metadata["creationTimestamp"] = now().into();
        if has_generation(resource) {
            metadata["generation"] = 1.into();
        }
        admission::with_identity(resource, &mut object);
        quota::admit(&state.quotas(&key.0), resource, None, &object)?;
        if dry_run {
            return Ok(Arc::new(object));
        }
        Ok(self.put(&mut state, resource, key, object, None))
    }

    /// # Errors
    /// `NotFound`.
    pub fn get(&self, resource: &Resource, namespace: Option<&str>, name: &str) -> Result<Arc<Value>, Fault> {
        let key = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        self.lock().table(resource).get(&key).cloned().ok_or_else(|| not_found(resource, name))
    }

    /// Objects of one namespace, or of all when `namespace` is `None`, sorted by namespace and name.
    pub fn list(&self, resource: &Resource, namespace: Option<&str>) -> List {
        let mut state = self.lock();
        let resource_version = state.version;
        let items = state.shard(resource).objects(namespace);
        List { items, resource_version }
    }

    /// Objects of one namespace whose indexed label has this value, which takes no look at the others. Indexed is the
    /// label `kubernetes.io/service-name` of EndpointSlices; of other resources all objects of the namespace are given.
    pub(crate) fn list_labelled(&self, resource: &Resource, namespace: &str, value: &str) -> Vec<Arc<Value>> {
        self.lock().shard(resource).labelled(namespace, value)
    }

    /// As [`Store::list`], as it was at an earlier version: from the present, all later changes undone.
    ///
    /// # Errors
    /// `Expired` when the version is older than the kept history.
    pub fn list_at(&self, resource: &Resource, namespace: Option<&str>, version: u64) -> Result<List, Fault> {
        let mut state = self.lock();
        let items = state.shard(resource).objects_at(namespace, version)?;
        Ok(List { items, resource_version: version })
    }

    /// Replaces an object through `change`, atomically. The closure sees the current object; what it leaves unchanged
    /// makes no new version. `metadata.generation` grows when `spec` changed. An object whose deletionTimestamp is set
    /// and whose last finalizer is gone is removed.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when the closure set a `metadata.resourceVersion` other than the current one, and
    /// whatever the closure returns.
    pub fn modify(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        change: impl FnOnce(&mut Value) -> Result<(), Fault>,
    ) -> Result<Arc<Value>, Fault> {
        self.modify_or_try(resource, namespace, name, false, change)
    }

    /// As [`Store::modify`], but with `dry_run` nothing is stored: the result is what would have been.
    ///
    /// # Errors
    /// As [`Store::modify`].
    pub fn modify_or_try<E: From<Fault>>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        dry_run: bool,
        change: impl FnOnce(&mut Value) -> Result<(), E>,
    ) -> Result<Arc<Value>, E> {
        let key = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        let mut state = self.lock();
        let current = state.table(resource).get(&key).cloned().ok_or_else(|| not_found(resource, name))?;
        let mut next = (*current).clone();
        change(&mut next)?;
        let current_version = current["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        match next["metadata"]["resourceVersion"].as_str() {
            Some(given) if !given.is_empty() && given != current_version => return Err(conflict(resource, name).into()),
            _ => next["metadata"]["resourceVersion"] = current_version.into(),
        }
        keep_system_metadata(&current, &mut next);
        if is_service(resource) {
            allocation::allocate(state.table(resource), &mut next)?;
        }
        as_go_writes_it(resource, &mut next);
        if next == *current {
            return Ok(current);
        }
        if is_service(resource) || is_claim(resource) {
            quota::admit(&state.quotas(&key.0), resource, Some(&current), &next)?;
        }
        if has_generation(resource) && is_respecified(resource, &current, &next) {
            let generation = current["metadata"]["generation"].as_i64().unwrap_or(1);
            next["metadata"]["generation"] = (generation + 1).into();
        }
        if dry_run {
            return Ok(Arc::new(next));
        }
        if is_deleted(&next) && !is_held(resource, &next) && grace_period(&next) == 0 {
            return Ok(self.remove(&mut state, resource, &key, next));
        }
        Ok(self.put(&mut state, resource, key, next, Some(current)))
    }

    /// Deletes an object, or marks it with deletionTimestamp when finalizers or a grace period hold it.
    /// Returns the object and whether it is gone.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when a precondition does not hold.
    pub fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(Arc<Value>, bool), Fault> {
        self.delete_or_try(resource, namespace, name, options, false)
    }

    /// As [`Store::delete`], but with `dry_run` nothing is deleted: the result is what would have been.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn delete_or_try(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
        dry_run: bool,
    ) -> Result<(Arc<Value>, bool), Fault> {
        let key = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        let mut state = self.lock();
        let current = state.table(resource).get(&key).cloned().ok_or_else(|| not_found(resource, name))?;
        for (field, label, wanted) in [("uid", "UID", &options.uid), ("resourceVersion", "ResourceVersion", &options.resource_version)] {
            if let Some(wanted) = wanted {
                let actual = current["metadata"][field].as_str().unwrap_or_default();
                if actual != wanted {
                    return Err(Fault::new(
                        Reason::Conflict,
                        format!(
                            "Operation cannot be fulfilled on {}{} \"{name}\": the {label} in the precondition ({wanted}) does not match the {label} in record ({actual}). The object might have been deleted and then recreated",
                            resource.plural,
                            group_suffix(resource)
                        ),
                    ));
                }
            }
        }
        let mut next = (*current).clone();
        let mut grace = if is_pod(resource) { pod_grace(&current, options.grace_period_seconds) } else { 0 };
        if is_deleted(&current) {
            grace = grace.min(grace_period(&current));
            if grace < grace_period(&current) {
                next["metadata"]["deletionTimestamp"] = after(grace).into();
            }
        } else {
            next["metadata"]["deletionTimestamp"] = after(grace).into();
            set_propagation_finalizers(&mut next, options.propagation_policy.as_deref());
            if is_namespace(resource) {
                next["status"]["phase"] = "Terminating".into();
            }
        }
        next["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        if has_generation(resource) && !is_deleted(&current) {
            let generation = current["metadata"]["generation"].as_i64().unwrap_or(1);
            next["metadata"]["generation"] = (generation + 1).into();
        }
        let gone = grace == 0 && !is_held(resource, &next);
        if dry_run {
            return Ok((Arc::new(next), gone));
        }
        if gone {
            return Ok((self.remove(&mut state, resource, &key, next), true));
        }
        if next == *current {
            return Ok((current, false));
        }
        Ok((self.put(&mut state, resource, key, next, Some(current)), false))
    }

    /// Changes of one resource, across namespaces. The stream ends with an error item when the reader is so slow that
    /// changes were lost; start again from a list.
    ///
    /// # Errors
    /// `Expired` when `After` names a version older than the kept history.
    pub fn watch(
        &self,
        resource: &Resource,
        start: WatchStart,
    ) -> Result<impl Stream<Item = Result<WatchEvent, Fault>> + Send + use<>, Fault> {
        let mut state = self.lock();
        let shard = state.shard(resource);
        let (backlog, after) = match start {
            WatchStart::FromNothing => {
                let backlog: Vec<WatchEvent> = shard.table().values().cloned().map(WatchEvent::Added).collect();
                (backlog, state.version)
            }
            WatchStart::After(version) => {
                shard.after(version)?;
                (Vec::new(), version)
            }
        };
        let changes = self.cursor(&mut state, resource, after);
        drop(state);
        let live = stream::unfold(Some(changes), |changes| async move {
            let mut changes = changes?;
            match changes.next().await {
                Ok(batch) => {
                    let events: Vec<_> = batch.iter().map(|change| Ok(change.event.clone())).collect();
                    Some((events, Some(changes)))
                }
                Err(fault) => Some((vec![Err(fault)], None)),
            }
        })
        .flat_map(stream::iter);
        Ok(stream::iter(backlog.into_iter().map(Ok)).chain(live))
    }

    /// A place in the history of one resource, for readers that want each [`Change`] whole.
    ///
    /// # Errors
    /// `Expired` when `version` is older than the kept history.
    pub fn changes(&self, resource: &Resource, version: u64) -> Result<Changes, Fault> {
        let mut state = self.lock();
        state.shard(resource).after(version)?;
        Ok(self.cursor(&mut state, resource, version))
    }

    /// The objects of a resource and the place in its history right after them, taken as one.
    pub fn list_and_changes(&self, resource: &Resource, namespace: Option<&str>) -> (List, Changes) {
        let mut state = self.lock();
        let list = List { items: state.shard(resource).objects(namespace), resource_version: state.version };
        let changes = self.cursor(&mut state, resource, list.resource_version);
        (list, changes)
    }

    pub(super) fn changes_after(&self, resource: &ResourceKey, version: u64) -> Result<Vec<Arc<Change>>, Fault> {
        match self.lock().shards.get(resource) {
            Some(shard) => shard.after(version),
            None => Ok(Vec::new()),
        }
    }

    /// The newest version at which a reader that has seen all up to `version` has missed nothing of a resource.
    pub(super) fn caught_up(&self, resource: &ResourceKey, version: u64) -> u64 {
        let state = self.lock();
        let missed = state.shards.get(resource).is_some_and(|shard| shard.newest() > version);
        if missed { version } else { state.version.max(version) }
    }

    /// What LimitRanges of the namespace say of a new object; see [`limit_range::admit`].
    ///
    /// # Errors
    /// `Forbidden`.
    pub(crate) fn limit(&self, resource: &Resource, namespace: &str, object: &mut Value) -> Result<(), Fault> {
        limit_range::admit(&self.lock().limit_ranges(namespace), resource, object)
    }

    /// The version of the newest write.
    pub fn resource_version(&self) -> u64 {
        self.lock().version
    }

    fn cursor(&self, state: &mut State, resource: &Resource, after: u64) -> Changes {
        Changes { store: self.clone(), resource: resource_key(resource), after, signal: state.shard(resource).subscribe() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, state: &mut State, resource: &Resource, key: (String, String), object: Value, before: Option<Arc<Value>>) -> Arc<Value> {
        let namespace = key.0.clone();
        let object = Self::write(state, resource, key, object, before);
        Self::measure_quotas(state, resource, &namespace);
        object
    }

    /// Brings the status of the namespace's quotas up to date.
    fn measure_quotas(state: &mut State, changed: &Resource, namespace: &str) {
        let quotas = state.quotas(namespace);
        // A quota that changed may bound anything.
        let only = (!is_quota(changed)).then_some(changed);
        for quota in quotas {
            let next =
                quota::measured(&quota, only, |key| state.shards.get(key).map(|shard| shard.objects(Some(namespace))).unwrap_or_default());
            if next != *quota {
                let key = (namespace.to_owned(), metadata_str(&quota, "name").unwrap_or_default());
                Self::write(state, &Resource::of::<ResourceQuota>(), key, next, Some(quota));
            }
        }
    }

    fn write(state: &mut State, resource: &Resource, key: (String, String), mut object: Value, before: Option<Arc<Value>>) -> Arc<Value> {
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        as_go_writes_it(resource, &mut object);
        let object = Arc::new(object);
        let shard = state.shard(resource);
        shard.insert(key, object.clone());
        let event = if before.is_some() { WatchEvent::Modified(object.clone()) } else { WatchEvent::Added(object.clone()) };
        shard.tell(version, event, before);
        object
    }

    fn remove(&self, state: &mut State, resource: &Resource, key: &(String, String), mut last: Value) -> Arc<Value> {
        state.version += 1;
        let version = state.version;
        last["metadata"]["resourceVersion"] = version.to_string().into();
        let last = Arc::new(last);
        let shard = state.shard(resource);
        let before = shard.remove(key);
        shard.tell(version, WatchEvent::Deleted(last.clone()), before);
        Self::measure_quotas(state, resource, &key.0);
        last
    }
}

impl State {
    fn shard(&mut self, resource: &Resource) -> &mut Shard {
        self.shards.entry(resource_key(resource)).or_insert_with_key(Shard::of)
    }

    fn table(&mut self, resource: &Resource) -> &super::shard::Table {
        self.shard(resource).table()
    }

    fn quotas(&self, namespace: &str) -> Vec<Arc<Value>> {
        self.core("resourcequotas", namespace)
    }

    fn limit_ranges(&self, namespace: &str) -> Vec<Arc<Value>> {
        self.core("limitranges", namespace)
    }

    fn core(&self, plural: &str, namespace: &str) -> Vec<Arc<Value>> {
        let shard = self.shards.get(&(String::new(), plural.to_owned()));
        shard.filter(|_| !namespace.is_empty()).map(|shard| shard.objects(Some(namespace))).unwrap_or_default()
    }

    fn namespace_is_terminating(&self, namespace: &str) -> bool {
        self.shards
            .get(&(String::new(), "namespaces".to_owned()))
            .and_then(|shard| shard.table().get(&(String::new(), namespace.to_owned())))
            .is_some_and(|object| is_deleted(object))
    }
}
