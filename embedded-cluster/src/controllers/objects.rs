//! Typed objects read straight from the store: always current, and each version is decoded only once.
//!
//! An informer's cache lags behind its own writes (kube-controller-manager needs "expectations" for that); reading the
//! store itself cannot, and comparing the pointers of the stored values makes it as cheap as a cache.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::store::{DeleteOptions, Fault, Resource, Scope, Store, Typed};

/// Namespace (empty for cluster-scoped objects) and name.
pub(crate) type Key = (String, String);

type Memo<K> = BTreeMap<Key, (Arc<Value>, Arc<K>)>;

/// Reads and writes the objects of one type; clones share what was decoded.
pub(crate) struct Objects<K> {
    store: Store,
    resource: Resource,
    typed: Typed<K>,
    memo: Arc<Mutex<Memo<K>>>,
}

impl<K> Clone for Objects<K>
where
    K: k8s_openapi::Resource + Serialize + DeserializeOwned + Send + Sync + 'static,
    K::Scope: crate::store::KnownScope,
{
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), resource: self.resource.clone(), typed: Typed::new(&self.store), memo: self.memo.clone() }
    }
}

impl<K> Objects<K>
where
    K: k8s_openapi::Resource + Serialize + DeserializeOwned + Send + Sync + 'static,
    K::Scope: crate::store::KnownScope,
{
    pub(crate) fn new(store: &Store) -> Self {
        Self { store: store.clone(), resource: Resource::of::<K>(), typed: Typed::new(store), memo: Arc::default() }
    }

    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let scoped = (self.resource.scope == Scope::Namespaced).then_some(namespace);
        let value = self.store.get(&self.resource, scoped, name).ok()?;
        let key = (scoped.unwrap_or_default().to_owned(), name.to_owned());
        self.decode(&mut self.memo.lock().unwrap_or_else(PoisonError::into_inner), key, value)
    }

    /// Objects of one namespace, or of all of them.
    pub(crate) fn list(&self, namespace: Option<&str>) -> Vec<Arc<K>> {
        let items = self.store.list(&self.resource, namespace).items;
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        if namespace.is_none() && memo.len() > items.len() + 64 {
            // Forget what was deleted; everything alive is decoded again from scratch at most once.
            memo.clear();
        }
        items.into_iter().filter_map(|value| self.decode(&mut memo, key_of(&value), value)).collect()
    }

    pub(crate) fn create(&self, namespace: &str, object: &K) -> Result<Arc<K>, Fault> {
        self.typed.create(namespace, object)
    }

    pub(crate) fn modify(&self, key: &Key, change: impl FnOnce(&mut K)) -> Result<Arc<K>, Fault> {
        self.typed.modify(&key.0, &key.1, |object| {
            change(object);
            Ok(())
        })
    }

    pub(crate) fn delete(&self, key: &Key, options: &DeleteOptions) -> Result<(), Fault> {
        self.typed.delete(&key.0, &key.1, options)
    }

    fn decode(&self, memo: &mut Memo<K>, key: Key, value: Arc<Value>) -> Option<Arc<K>> {
        if let Some((known, typed)) = memo.get(&key)
            && Arc::ptr_eq(known, &value)
        {
            return Some(typed.clone());
        }
        let typed: Arc<K> = match K::deserialize(&*value) {
            Ok(typed) => Arc::new(typed),
            Err(error) => {
                tracing::warn!(kind = self.resource.kind, ?key, %error, "stored object does not fit its type; ignored");
                return None;
            }
        };
        memo.insert(key, (value, typed.clone()));
        Some(typed)
    }
}

/// Where an object is.
pub(crate) fn key_of(value: &Value) -> Key {
    let field = |name: &str| value["metadata"][name].as_str().unwrap_or_default().to_owned();
    (field("namespace"), field("name"))
}
