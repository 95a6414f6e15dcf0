//! A view of the store through k8s-openapi's types, for controllers in the same process.

use std::marker::PhantomData;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::objects::{DeleteOptions, Fault, Store, WatchEvent, WatchStart};
use super::resource::{KnownScope, Resource};

/// A change of a typed object.
#[derive(Clone, Debug)]
pub enum Event<K> {
    Applied(Arc<K>),
    Deleted(Arc<K>),
}

/// The objects of one type. `namespace` arguments are ignored for cluster-scoped types.
#[derive(Clone)]
pub struct Typed<K> {
    store: Store,
    resource: Resource,
    kind: PhantomData<fn() -> K>,
}

impl<K> Typed<K>
where
    K: k8s_openapi::Resource + Serialize + DeserializeOwned + Send + Sync + 'static,
    K::Scope: KnownScope,
{
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), resource: Resource::of::<K>(), kind: PhantomData }
    }

    /// # Errors
    /// As [`Store::create`].
    pub fn create(&self, namespace: &str, object: &K) -> Result<Arc<K>, Fault> {
        let value = serde_json::to_value(object).map_err(unreadable)?;
        typed(&*self.store.create(&self.resource, self.scoped(namespace), value)?)
    }

    /// # Errors
    /// As [`Store::get`].
    pub fn get(&self, namespace: &str, name: &str) -> Result<Arc<K>, Fault> {
        typed(&*self.store.get(&self.resource, self.scoped(namespace), name)?)
    }

    /// Objects of one namespace, or of all of them.
    pub fn list(&self, namespace: Option<&str>) -> Vec<Arc<K>> {
        self.store.list(&self.resource, namespace).items.iter().filter_map(|o| typed(o).ok()).collect()
    }

    /// Atomic read-modify-write; see [`Store::modify`].
    ///
    /// # Errors
    /// As [`Store::modify`].
    pub fn modify(&self, namespace: &str, name: &str, change: impl FnOnce(&mut K) -> Result<(), Fault>) -> Result<Arc<K>, Fault> {
        let stored = self.store.modify(&self.resource, self.scoped(namespace), name, |value| {
            let mut object: K = serde_json::from_value(value.clone()).map_err(unreadable)?;
            change(&mut object)?;
            *value = serde_json::to_value(&object).map_err(unreadable)?;
            Ok(())
        })?;
        typed(&stored)
    }

    /// # Errors
    /// As [`Store::delete`].
    pub fn delete(&self, namespace: &str, name: &str, options: &DeleteOptions) -> Result<(), Fault> {
        self.store.delete(&self.resource, self.scoped(namespace), name, options).map(drop)
    }

    /// Everything there is, then changes, for ever. A reader that falls behind is given everything anew.
    pub fn watch(&self) -> impl Stream<Item = Event<K>> + Send + use<K> {
        let this = Self { store: self.store.clone(), resource: self.resource.clone(), kind: PhantomData };
        futures::stream::repeat(())
            .flat_map(move |()| match this.store.watch(&this.resource, WatchStart::FromNothing) {
                Ok(events) => events.take_while(|item| futures::future::ready(item.is_ok())).boxed(),
                Err(_) => futures::stream::empty().boxed(),
            })
            .filter_map(|item| async move {
                match item.ok()? {
                    WatchEvent::Added(o) | WatchEvent::Modified(o) => typed(&o).ok().map(Event::Applied),
                    WatchEvent::Deleted(o) => typed(&o).ok().map(Event::Deleted),
                }
            })
    }

    fn scoped<'a>(&self, namespace: &'a str) -> Option<&'a str> {
        (self.resource.scope == super::Scope::Namespaced).then_some(namespace)
    }
}

fn typed<K: DeserializeOwned>(value: &Value) -> Result<Arc<K>, Fault> {
    serde_json::from_value(value.clone()).map(Arc::new).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Fault {
    Fault::new(super::Reason::Invalid, error.to_string())
}
