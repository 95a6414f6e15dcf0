//! The objects of one resource type with their recent history: what watches read from.
//!
//! Watchers share one bounded history instead of a queue each: a watcher is only a cursor, so a slow one costs nothing
//! and simply finds its place gone (410 Gone), as with etcd's compaction.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use super::objects::{Fault, Reason, Store, WatchEvent};

/// How many past changes of one resource are kept for watches that start from an older resource version. Each holds an
/// object, so this bounds memory too.
const HISTORY: usize = 1024;

/// One write, shared by all watchers.
#[derive(Debug)]
pub struct Change {
    pub version: u64,
    pub event: WatchEvent,
    /// The object before the write: a watch with a selector reports an object that leaves the selection as deleted.
    pub before: Option<Arc<Value>>,
    wire: OnceLock<Bytes>,
}

impl Change {
    /// The change as a line of a watch response, made once for all watchers.
    pub fn wire(&self, encode: impl FnOnce(&WatchEvent) -> Bytes) -> Bytes {
        self.wire.get_or_init(|| encode(&self.event)).clone()
    }
}

pub(super) type Table = BTreeMap<(String, String), Arc<Value>>;
pub(super) type ResourceKey = (String, String);

/// Resources whose objects are looked up by a label, as informers' indexers do it: what controllers ask for each of a
/// thousand Services must not look at a thousand objects each time.
const INDEXED: [(&str, &str, &str); 1] = [("discovery.k8s.io", "endpointslices", "kubernetes.io/service-name")];

pub(super) struct Shard {
    table: Table,
    index: Option<LabelIndex>,
    history: VecDeque<Arc<Change>>,
    /// Version of the newest change that was dropped from the history.
    forgotten: u64,
    signal: watch::Sender<u64>,
}

/// Names by namespace and value of the label.
struct LabelIndex {
    label: &'static str,
    names: BTreeMap<(String, String), BTreeSet<String>>,
}

impl LabelIndex {
    fn value<'a>(&self, object: &'a Value) -> Option<&'a str> {
        object["metadata"]["labels"][self.label].as_str()
    }

    fn add(&mut self, (namespace, name): &(String, String), object: &Value) {
        if let Some(value) = self.value(object) {
            self.names.entry((namespace.clone(), value.to_owned())).or_default().insert(name.clone());
        }
    }

    fn remove(&mut self, (namespace, name): &(String, String), object: &Value) {
        let Some(value) = self.value(object) else { return };
        let place = (namespace.clone(), value.to_owned());
        if let Some(names) = self.names.get_mut(&place) {
            names.remove(name);
            if names.is_empty() {
                self.names.remove(&place);
            }
        }
    }
}

impl Shard {
    pub fn of((group, plural): &ResourceKey) -> Self {
        let indexed = INDEXED.iter().find(|(g, p, _)| g == group && p == plural);
        let index = indexed.map(|(_, _, label)| LabelIndex { label, names: BTreeMap::new() });
        Self { table: Table::new(), index, history: VecDeque::new(), forgotten: 0, signal: watch::Sender::new(0) }
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn insert(&mut self, key: (String, String), object: Arc<Value>) {
        if let Some(index) = &mut self.index {
            if let Some(before) = self.table.get(&key) {
                index.remove(&key, before);
            }
            index.add(&key, &object);
        }
        self.table.insert(key, object);
    }

    pub fn remove(&mut self, key: &(String, String)) -> Option<Arc<Value>> {
        let before = self.table.remove(key)?;
        if let Some(index) = &mut self.index {
            index.remove(key, &before);
        }
        Some(before)
    }

    /// Objects of a namespace whose indexed label has this value. All of the namespace's where no label is indexed.
    pub fn labelled(&self, namespace: &str, value: &str) -> Vec<Arc<Value>> {
        let Some(index) = &self.index else { return self.objects(Some(namespace)) };
        let names = index.names.get(&(namespace.to_owned(), value.to_owned()));
        names.into_iter().flatten().filter_map(|name| self.table.get(&(namespace.to_owned(), name.clone())).cloned()).collect()
    }

    pub fn tell(&mut self, version: u64, event: WatchEvent, before: Option<Arc<Value>>) {
        self.history.push_back(Arc::new(Change { version, event, before, wire: OnceLock::new() }));
        if self.history.len() > HISTORY
            && let Some(dropped) = self.history.pop_front()
        {
            self.forgotten = dropped.version;
        }
        self.signal.send_replace(version);
    }

    pub fn objects(&self, namespace: Option<&str>) -> Vec<Arc<Value>> {
        match namespace {
            None => self.table.values().cloned().collect(),
            Some(namespace) => {
                let from = (namespace.to_owned(), String::new());
                self.table
                    .range((Bound::Included(from), Bound::Unbounded))
                    .take_while(|((n, _), _)| n == namespace)
                    .map(|(_, o)| o.clone())
                    .collect()
            }
        }
    }

    /// The objects as they were right after `version`.
    pub fn objects_at(&self, namespace: Option<&str>, version: u64) -> Result<Vec<Arc<Value>>, Fault> {
        let later = self.after(version)?;
        if later.is_empty() {
            return Ok(self.objects(namespace));
        }
        let mut table = self.table.clone();
        for change in later.iter().rev() {
            let text = |field: &str| change.event.object()["metadata"][field].as_str().unwrap_or_default().to_owned();
            let key = (text("namespace"), text("name"));
            match &change.before {
                Some(before) => drop(table.insert(key, before.clone())),
                None => drop(table.remove(&key)),
            }
        }
        Ok(table
            .into_iter()
            .filter(|((home, _), _)| namespace.is_none_or(|namespace| home == namespace))
            .map(|(_, object)| object)
            .collect())
    }

    pub fn newest(&self) -> u64 {
        self.history.back().map_or(self.forgotten, |change| change.version)
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.signal.subscribe()
    }

    /// Changes newer than `version`.
    pub fn after(&self, version: u64) -> Result<Vec<Arc<Change>>, Fault> {
        if version < self.forgotten {
            return Err(Fault::new(Reason::Expired, format!("too old resource version: {version} ({})", self.forgotten)));
        }
        let from = self.history.partition_point(|change| change.version <= version);
        Ok(self.history.range(from..).cloned().collect())
    }
}

/// A place in the history of one resource.
pub struct Changes {
    pub(super) store: Store,
    pub(super) resource: ResourceKey,
    pub(super) after: u64,
    pub(super) signal: watch::Receiver<u64>,
}

impl Changes {
    /// Waits until there are changes, and returns all there are. Cancelling loses nothing.
    ///
    /// # Errors
    /// `Expired` when the reader fell behind the kept history; every later call fails too.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, Fault> {
        loop {
            // Marked as seen before reading, so that a write in between wakes the next wait.
            self.signal.borrow_and_update();
            let changes = self.store.changes_after(&self.resource, self.after)?;
            if let Some(last) = changes.last() {
                self.after = last.version;
                return Ok(changes);
            }
            if self.signal.changed().await.is_err() {
                // The store, which owns the sender, is alive as long as this cursor; kept for the type's sake.
                return Err(Fault::new(Reason::Expired, "the store is gone"));
            }
        }
    }

    /// Everything up to this version has been returned, or is none of this resource's: a watch may go on from here.
    pub fn position(&mut self) -> u64 {
        self.after = self.store.caught_up(&self.resource, self.after);
        self.after
    }
}
