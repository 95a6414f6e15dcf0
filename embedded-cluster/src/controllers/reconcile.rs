//! The loop every controller runs: watches name the keys that may need work, each key is looked at once however many
//! changes named it, and a key may ask to be looked at again later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::time::Instant;

use super::objects::Key;
use crate::store::{Resource, Store, WatchEvent, WatchStart};

/// Names what a change of an object concerns.
type Keys = Box<dyn Fn(&Value) -> Vec<Key> + Send>;

/// A resource to follow and the keys that a change of one of its objects concerns.
pub(crate) struct Trigger {
    resource: Resource,
    keys: Keys,
}

impl Trigger {
    pub(crate) fn new(resource: &Resource, keys: impl Fn(&Value) -> Vec<Key> + Send + 'static) -> Self {
        Self { resource: resource.clone(), keys: Box::new(keys) }
    }

    /// The object's own key.
    pub(crate) fn itself(resource: &Resource) -> Self {
        Self::new(resource, |object| vec![super::objects::key_of(object)])
    }

    /// The owner that manages the object, when it is of this kind.
    pub(crate) fn controller_of(resource: &Resource, kind: &'static str) -> Self {
        Self::new(resource, move |object| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners
                .into_iter()
                .flatten()
                .filter(|owner| owner["controller"] == true && owner["kind"] == kind)
                .map(|owner| {
                    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
                    (namespace.to_owned(), owner["name"].as_str().unwrap_or_default().to_owned())
                })
                .collect()
        })
    }
}

/// Whether a key needs another look although nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Again(Duration),
}

/// Runs for ever. `reconcile` must not block: the store is in memory.
pub(crate) async fn drive(store: Store, triggers: Vec<Trigger>, mut reconcile: impl FnMut(&Key) -> Outcome + Send) {
    let mut changes: SelectAll<BoxStream<'static, (usize, WatchEvent)>> = SelectAll::new();
    for (index, trigger) in triggers.iter().enumerate() {
        changes.push(follow(store.clone(), trigger.resource.clone()).map(move |event| (index, event)).boxed());
    }
    let mut pending: BTreeSet<Key> = BTreeSet::new();
    let mut later: BTreeMap<Key, Instant> = BTreeMap::new();
    loop {
        let next_timer = later.values().min().copied();
        tokio::select! {
            change = changes.next() => match change {
                Some((index, event)) => pending.extend((triggers[index].keys)(event.object())),
                None => return,
            },
            () = sleep_until(next_timer) => {}
        }
        // One pass over whatever else has already happened, so that a burst of changes costs one look at each key.
        while let Some(Some((index, event))) = changes.next().now_or_never() {
            pending.extend((triggers[index].keys)(event.object()));
        }
        let now = Instant::now();
        pending.extend(later.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()));
        for key in std::mem::take(&mut pending) {
            later.remove(&key);
            if let Outcome::Again(after) = reconcile(&key) {
                later.insert(key, Instant::now() + after);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Everything there is, then every change; begins anew when it fell behind.
pub(crate) fn follow(store: Store, resource: Resource) -> BoxStream<'static, WatchEvent> {
    futures::stream::repeat(())
        .flat_map(move |()| match store.watch(&resource, WatchStart::FromNothing) {
            Ok(events) => events.take_while(|item| std::future::ready(item.is_ok())).boxed(),
            Err(_) => futures::stream::empty().boxed(),
        })
        .filter_map(|item| std::future::ready(item.ok()))
        .boxed()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
