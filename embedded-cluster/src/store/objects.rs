//! Objects by resource, namespace and name; every write takes the next resource version and is told to the watchers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt, stream};
use serde_json::Value;
use tokio::sync::broadcast;

use super::Resource;

/// How many past events are kept for watches that start from an older resource version; older ones get 410 Gone.
const HISTORY: usize = 8192;

/// Why the store refused, in the vocabulary of `metav1.StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NotFound,
    AlreadyExists,
    Conflict,
    Invalid,
    Expired,
    BadRequest,
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

type Table = BTreeMap<(String, String), Arc<Value>>;
type ResourceKey = (String, String);

#[derive(Default)]
struct State {
    version: u64,
    tables: BTreeMap<ResourceKey, Table>,
    history: VecDeque<(u64, ResourceKey, WatchEvent)>,
}

/// Handle to the one store of a cluster; clones share it.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<(u64, ResourceKey, WatchEvent)>,
}

impl Default for Store {
    fn default() -> Self {
        Self { state: Arc::default(), changes: broadcast::channel(HISTORY).0 }
    }
}

impl Store {
    /// Stores a new object: gives uid, creationTimestamp and resourceVersion. `metadata.name` must be set.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, `Invalid` without a name.
    pub fn create(&self, resource: &Resource, namespace: Option<&str>, mut object: Value) -> Result<Arc<Value>, Fault> {
        let name = metadata_str(&object, "name").ok_or_else(|| Fault::new(Reason::Invalid, "metadata.name: Required value"))?;
        let key = (namespace.unwrap_or_default().to_owned(), name.clone());
        let mut state = self.lock();
        if state.table(resource).contains_key(&key) {
            return Err(Fault::new(
                Reason::AlreadyExists,
                format!("{}{} \"{name}\" already exists", resource.plural, group_suffix(resource)),
            ));
        }
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.clone().into();
        let metadata = &mut object["metadata"];
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.into();
        }
        metadata["uid"] = uuid::Uuid::new_v4().to_string().into();
        metadata["creationTimestamp"] = now().into();
        metadata["generation"] = 1.into();
        Ok(self.put(&mut state, resource, key, object, WatchEvent::Added))
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
        let items =
            state.table(resource).iter().filter(|((n, _), _)| namespace.is_none_or(|wanted| wanted == n)).map(|(_, o)| o.clone()).collect();
        List { items, resource_version }
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
        let key = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        let mut state = self.lock();
        let current = state.table(resource).get(&key).cloned().ok_or_else(|| not_found(resource, name))?;
        let mut next = (*current).clone();
        change(&mut next)?;
        let current_version = current["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        match next["metadata"]["resourceVersion"].as_str() {
            Some(given) if !given.is_empty() && given != current_version => {
                return Err(Fault::new(
                    Reason::Conflict,
                    format!(
                        "Operation cannot be fulfilled on {}{} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
                        resource.plural,
                        group_suffix(resource)
                    ),
                ));
            }
            _ => next["metadata"]["resourceVersion"] = current_version.into(),
        }
        for kept in ["uid", "creationTimestamp", "name", "namespace", "deletionTimestamp"] {
            match current["metadata"].get(kept) {
                Some(value) => next["metadata"][kept] = value.clone(),
                None if kept != "deletionTimestamp" => {
                    if let Some(metadata) = next["metadata"].as_object_mut() {
                        metadata.remove(kept);
                    }
                }
                None => {}
            }
        }
        if next == *current {
            return Ok(current);
        }
        if next.get("spec") != current.get("spec") {
            let generation = current["metadata"]["generation"].as_i64().unwrap_or(1);
            next["metadata"]["generation"] = (generation + 1).into();
        }
        if is_deleted(&next) && !has_finalizers(&next) && grace_period(&next) == 0 {
            return Ok(self.remove(&mut state, resource, &key, next));
        }
        Ok(self.put(&mut state, resource, key, next, WatchEvent::Modified))
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
        let key = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        let mut state = self.lock();
        let current = state.table(resource).get(&key).cloned().ok_or_else(|| not_found(resource, name))?;
        for (field, wanted) in [("uid", &options.uid), ("resourceVersion", &options.resource_version)] {
            if let Some(wanted) = wanted
                && current["metadata"][field].as_str() != Some(wanted)
            {
                return Err(Fault::new(Reason::Conflict, format!("Precondition failed: {field} in precondition: {wanted}")));
            }
        }
        let default_grace = if resource.group.is_empty() && resource.plural == "pods" {
            current["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30)
        } else {
            0
        };
        let never_started = resource.plural == "pods" && current["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
        let mut grace = options.grace_period_seconds.unwrap_or(default_grace).max(0);
        if never_started || resource.plural != "pods" {
            grace = 0;
        }
        let mut next = (*current).clone();
        if is_deleted(&current) {
            grace = grace.min(grace_period(&current));
        } else {
            next["metadata"]["deletionTimestamp"] = after(grace).into();
        }
        next["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        if grace == 0 && !has_finalizers(&next) {
            return Ok((self.remove(&mut state, resource, &key, next), true));
        }
        if next == *current {
            return Ok((current, false));
        }
        Ok((self.put(&mut state, resource, key, next, WatchEvent::Modified), false))
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
        let wanted = resource_key(resource);
        let mut state = self.lock();
        let changes = self.changes.subscribe();
        let backlog: Vec<WatchEvent> = match start {
            WatchStart::FromNothing => state.table(resource).values().cloned().map(WatchEvent::Added).collect(),
            WatchStart::After(version) => {
                if let Some((oldest, ..)) = state.history.front()
                    && version + 1 < *oldest
                {
                    return Err(Fault::new(Reason::Expired, format!("too old resource version: {version} ({oldest})")));
                }
                state.history.iter().filter(|(v, key, _)| *v > version && *key == wanted).map(|(.., event)| event.clone()).collect()
            }
        };
        drop(state);
        let live = stream::unfold((changes, wanted), |(mut changes, wanted)| async move {
            loop {
                match changes.recv().await {
                    Ok((_, key, event)) if key == wanted => return Some((Ok(event), (changes, wanted))),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        let fault = Fault::new(Reason::Expired, "too old resource version: the watch fell behind");
                        return Some((Err(fault), (changes, wanted)));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Ok(stream::iter(backlog.into_iter().map(Ok)).chain(live))
    }

    /// The version of the newest write.
    pub fn resource_version(&self) -> u64 {
        self.lock().version
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(
        &self,
        state: &mut State,
        resource: &Resource,
        key: (String, String),
        mut object: Value,
        event: fn(Arc<Value>) -> WatchEvent,
    ) -> Arc<Value> {
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let object = Arc::new(object);
        state.table(resource).insert(key, object.clone());
        self.tell(state, resource, event(object.clone()));
        object
    }

    fn remove(&self, state: &mut State, resource: &Resource, key: &(String, String), mut last: Value) -> Arc<Value> {
        state.version += 1;
        last["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.table(resource).remove(key);
        let last = Arc::new(last);
        self.tell(state, resource, WatchEvent::Deleted(last.clone()));
        last
    }

    fn tell(&self, state: &mut State, resource: &Resource, event: WatchEvent) {
        let entry = (state.version, resource_key(resource), event);
        state.history.push_back(entry.clone());
        if state.history.len() > HISTORY {
            state.history.pop_front();
        }
        // Nobody watching is no error. Sent under the lock, so that watchers see versions in order.
        let _ = self.changes.send(entry);
    }
}

impl State {
    fn table(&mut self, resource: &Resource) -> &mut Table {
        self.tables.entry(resource_key(resource)).or_default()
    }
}

fn resource_key(resource: &Resource) -> ResourceKey {
    (resource.group.clone(), resource.plural.clone())
}

fn group_suffix(resource: &Resource) -> String {
    if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) }
}

fn not_found(resource: &Resource, name: &str) -> Fault {
    Fault::new(Reason::NotFound, format!("{}{} \"{name}\" not found", resource.plural, group_suffix(resource)))
}

fn metadata_str(object: &Value, field: &str) -> Option<String> {
    object["metadata"][field].as_str().filter(|s| !s.is_empty()).map(str::to_owned)
}

fn is_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

fn grace_period(object: &Value) -> i64 {
    object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0)
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
fn now() -> String {
    after(0)
}

fn after(seconds: i64) -> String {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
