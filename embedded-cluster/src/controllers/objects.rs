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
    ///
    /// Store and memo are in the same order, so both are walked once; keys are only looked at where they differ. With
    /// a thousand objects that is the difference between microseconds and milliseconds.
    pub(crate) fn list(&self, namespace: Option<&str>) -> Vec<Arc<K>> {
        let items = self.store.list(&self.resource, namespace).items;
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut objects, mut changed, mut gone) = (Vec::with_capacity(items.len()), Vec::new(), Vec::new());
        let from = (namespace.unwrap_or_default().to_owned(), String::new());
        let mut known = memo.range(from..).take_while(|(key, _)| namespace.is_none_or(|namespace| key.0 == namespace)).peekable();
        for value in items {
            if let Some((_, (_, typed))) = known.next_if(|(_, (same, _))| Arc::ptr_eq(same, &value)) {
                objects.push(typed.clone());
                continue;
            }
            let key = key_of(&value);
            while let Some((key, _)) = known.next_if(|(other, _)| **other < key) {
                gone.push(key.clone());
            }
            match known.next_if(|(other, _)| **other == key) {
                Some((_, (same, typed))) if Arc::ptr_eq(same, &value) => objects.push(typed.clone()),
                _ => {
                    if let Some(typed) = self.read(&key, &value) {
                        objects.push(typed.clone());
                        changed.push((key, (value, typed)));
                    }
                }
            }
        }
        gone.extend(known.map(|(key, _)| key.clone()));
        for key in gone {
            memo.remove(&key);
        }
        memo.extend(changed);
        objects
    }

    /// Objects of one namespace whose indexed label has this value; see [`Store::list_labelled`].
    pub(crate) fn list_labelled(&self, namespace: &str, value: &str) -> Vec<Arc<K>> {
        let items = self.store.list_labelled(&self.resource, namespace, value);
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
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
        let typed = self.read(&key, &value)?;
        memo.insert(key, (value, typed.clone()));
        Some(typed)
    }

    fn read(&self, key: &Key, value: &Value) -> Option<Arc<K>> {
        match K::deserialize(value) {
            Ok(typed) => Some(Arc::new(typed)),
            Err(error) => {
                tracing::warn!(kind = self.resource.kind, ?key, %error, "stored object does not fit its type; ignored");
                None
            }
        }
    }
}

/// Where an object is.
pub(crate) fn key_of(value: &Value) -> Key {
    let field = |name: &str| value["metadata"][name].as_str().unwrap_or_default().to_owned();
    (field("namespace"), field("name"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn objects() -> Objects<ConfigMap> {
        Objects::new(&Store::default())
    }

    fn add(objects: &Objects<ConfigMap>, namespace: &str, name: &str) {
        objects.create(namespace, &serde_json::from_value(json!({"metadata": {"name": name}})).expect("a ConfigMap")).expect("created");
    }

    fn names(listed: &[Arc<ConfigMap>]) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        listed.iter().map(|o| format!("{}/{}", text(&o.metadata.namespace), text(&o.metadata.name))).collect()
    }

    #[test]
    fn lists_are_current_and_decode_only_what_changed() {
        let objects = objects();
        for (namespace, name) in [("b", "1"), ("a", "2"), ("a", "1"), ("a-b", "1"), ("c", "1")] {
            add(&objects, namespace, name);
        }
        let before = objects.list(None);
        assert_eq!(names(&before), ["a/1", "a/2", "a-b/1", "b/1", "c/1"]);
        assert!(before.iter().zip(objects.list(None)).all(|(one, again)| Arc::ptr_eq(one, &again)), "nothing is decoded twice");
        // One that changed, one that is gone, one that is new, before and after others.
        objects.modify(&("a".to_owned(), "2".to_owned()), |map| map.immutable = Some(true)).expect("modified");
        objects.delete(&("a-b".to_owned(), "1".to_owned()), &DeleteOptions::default()).expect("deleted");
        objects.delete(&("c".to_owned(), "1".to_owned()), &DeleteOptions::default()).expect("deleted");
        add(&objects, "a", "0");
        let after = objects.list(None);
        assert_eq!(names(&after), ["a/0", "a/1", "a/2", "b/1"]);
        assert_eq!(after[2].immutable, Some(true));
        assert!(Arc::ptr_eq(&after[1], &before[0]) && Arc::ptr_eq(&after[3], &before[3]));
        assert_eq!(objects.memo.lock().expect("not poisoned").len(), 4, "what is gone is forgotten");
    }

    #[test]
    fn a_namespace_is_listed_alone() {
        let objects = objects();
        for (namespace, name) in [("a", "1"), ("ab", "1"), ("b", "1")] {
            add(&objects, namespace, name);
        }
        let all = objects.list(None);
        assert_eq!(names(&objects.list(Some("ab"))), ["ab/1"]);
        objects.delete(&("ab".to_owned(), "1".to_owned()), &DeleteOptions::default()).expect("deleted");
        assert_eq!(names(&objects.list(Some("ab"))), [] as [String; 0]);
        assert!(all.iter().step_by(2).zip(objects.list(None)).all(|(one, again)| Arc::ptr_eq(one, &again)), "others stay decoded");
    }
}
