//! Garbage collection by ownerReferences: what nobody owns any more goes (background), goes before its owner
//! (foreground), or is let go of (orphan).

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::namespace::{namespaced_resources, stored};
use super::objects::{Key, Objects, key_of};
use super::reconcile::follow;
use crate::store::{DeleteOptions, Resource, Scope, Store, WatchEvent};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Identifies an object in the graph.
type Node = (usize, Key);

#[derive(Clone, Debug)]
struct Owner {
    uid: String,
    blocks: bool,
}

/// Who owns what. Kept from events, so that nothing is listed when something goes.
#[derive(Default)]
struct Graph {
    resources: Vec<Resource>,
    /// Every object by uid.
    objects: BTreeMap<String, Node>,
    owners: BTreeMap<String, Vec<Owner>>,
    dependents: BTreeMap<String, BTreeSet<String>>,
}

/// Runs for ever.
pub(super) async fn run(store: Store) {
    let definitions: Objects<CustomResourceDefinition> = Objects::new(&store);
    let mut graph = Graph::default();
    let mut changes: SelectAll<BoxStream<'static, (usize, WatchEvent)>> = SelectAll::new();
    let mut known = BTreeSet::new();
    let mut add = |graph: &mut Graph, changes: &mut SelectAll<_>| {
        let custom_cluster_scoped = definitions
            .list(None)
            .into_iter()
            .filter(|crd| crd.spec.scope == "Cluster")
            .map(|crd| stored(&crd.spec.group, &crd.spec.names.plural, Scope::Cluster));
        let resources = namespaced_resources(&definitions)
            .into_iter()
            .chain(crate::api::served_resources().filter(|resource| resource.scope == Scope::Cluster))
            .chain(custom_cluster_scoped)
            // Events refer to objects but are not owned by them.
            .filter(|resource| resource.plural != "events");
        for resource in resources {
            if known.insert((resource.group.clone(), resource.plural.clone())) {
                let index = graph.resources.len();
                changes.push(follow(store.clone(), resource.clone()).map(move |event| (index, event)).boxed());
                graph.resources.push(resource);
            }
        }
    };
    add(&mut graph, &mut changes);
    while let Some((index, event)) = changes.next().await {
        let is_definition = graph.resources[index].plural == "customresourcedefinitions";
        let object = event.object().clone();
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        match event {
            WatchEvent::Added(_) | WatchEvent::Modified(_) => {
                graph.learn(index, &uid, &object);
                graph.attend(&store, &uid, &object);
            }
            WatchEvent::Deleted(_) => graph.forget(&store, &uid),
        }
        if is_definition {
            add(&mut graph, &mut changes);
        }
    }
}

impl Graph {
    fn learn(&mut self, resource: usize, uid: &str, object: &Value) {
        self.objects.insert(uid.to_owned(), (resource, key_of(object)));
        let owners: Vec<Owner> = object["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|owner| Owner { uid: owner["uid"].as_str().unwrap_or_default().to_owned(), blocks: owner["blockOwnerDeletion"] == true })
            .collect();
        for old in self.owners.remove(uid).unwrap_or_default() {
            if let Some(dependents) = self.dependents.get_mut(&old.uid) {
                dependents.remove(uid);
            }
        }
        for owner in &owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
        }
        if !owners.is_empty() {
            self.owners.insert(uid.to_owned(), owners);
        }
    }

    /// Acts on a live object that waits for its dependents.
    fn attend(&mut self, store: &Store, uid: &str, object: &Value) {
        if !object["metadata"]["deletionTimestamp"].is_string() {
            // Its owner may have gone before this one was seen.
            self.collect(store, uid, object);
            return;
        }
        let finalizer = |wanted: &str| object["metadata"]["finalizers"].as_array().is_some_and(|list| list.iter().any(|f| f == wanted));
        if finalizer(ORPHAN) || finalizer(FOREGROUND) {
            self.catch_up(store, object["metadata"]["namespace"].as_str());
        }
        let dependents: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        if finalizer(ORPHAN) {
            for dependent in &dependents {
                self.disown(store, dependent, uid);
            }
            self.release(store, uid, ORPHAN);
        } else if finalizer(FOREGROUND) {
            for dependent in &dependents {
                // Those below are to be gone first as well.
                let options = DeleteOptions { propagation_policy: Some("Foreground".to_owned()), ..DeleteOptions::default() };
                self.delete(store, dependent, &options);
            }
            self.release_when_free(store, uid);
        }
    }

    /// Learns of objects whose own watch has not told of them yet: an owner must not be let go of before it is known
    /// what it owns.
    fn catch_up(&mut self, store: &Store, namespace: Option<&str>) {
        for index in 0..self.resources.len() {
            let resource = &self.resources[index];
            if resource.scope == Scope::Cluster && namespace.is_some() {
                continue;
            }
            for object in store.list(resource, namespace).items {
                let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
                if !self.objects.contains_key(uid) {
                    self.learn(index, uid, &object);
                }
            }
        }
    }

    fn forget(&mut self, store: &Store, uid: &str) {
        self.objects.remove(uid);
        let owners = self.owners.remove(uid).unwrap_or_default();
        for owner in &owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
            }
            self.release_when_free(store, &owner.uid);
        }
        for dependent in self.dependents.remove(uid).unwrap_or_default() {
            if let Some(object) = self.read(store, &dependent) {
                self.collect(store, &dependent, &object);
            }
        }
    }

    /// Deletes an object all of whose owners are gone. An owner that was never seen is looked for first: the watch of
    /// its kind may simply be behind.
    fn collect(&self, store: &Store, uid: &str, object: &Value) {
        let references = object["metadata"]["ownerReferences"].as_array().filter(|owners| !owners.is_empty());
        let Some(references) = references else { return };
        let namespace = object["metadata"]["namespace"].as_str();
        let all_gone = references.iter().all(|owner| {
            let owner_uid = owner["uid"].as_str().unwrap_or_default();
            !self.objects.contains_key(owner_uid) && !self.exists(store, namespace, owner, owner_uid)
        });
        if all_gone {
            self.delete(store, uid, &DeleteOptions::default());
        }
    }

    fn exists(&self, store: &Store, namespace: Option<&str>, owner: &Value, uid: &str) -> bool {
        let (kind, name) = (owner["kind"].as_str().unwrap_or_default(), owner["name"].as_str().unwrap_or_default());
        let group = owner["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
        let candidates = self.resources.iter().filter(|resource| resource.group == group);
        candidates.into_iter().any(|resource| {
            let namespace = namespace.filter(|_| resource.scope == Scope::Namespaced);
            store.get(resource, namespace, name).is_ok_and(|o| o["metadata"]["uid"] == uid && (o["kind"] == kind || kind.is_empty()))
        })
    }

    fn release_when_free(&self, store: &Store, uid: &str) {
        let blocked = self
            .dependents
            .get(uid)
            .into_iter()
            .flatten()
            .any(|dependent| self.owners.get(dependent).into_iter().flatten().any(|owner| owner.uid == uid && owner.blocks));
        let Some(object) = self.read(store, uid) else { return };
        let waits = object["metadata"]["deletionTimestamp"].is_string()
            && object["metadata"]["finalizers"].as_array().is_some_and(|list| list.iter().any(|f| f == FOREGROUND));
        if waits && !blocked {
            self.release(store, uid, FOREGROUND);
        }
    }

    fn release(&self, store: &Store, uid: &str, finalizer: &str) {
        self.change(store, uid, |object| {
            if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
                finalizers.retain(|f| f != finalizer);
            }
        });
    }

    fn disown(&self, store: &Store, uid: &str, owner: &str) {
        self.change(store, uid, |object| {
            if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
                owners.retain(|o| o["uid"] != owner);
            }
        });
    }

    fn place(&self, uid: &str) -> Option<(&Resource, Option<&str>, &str)> {
        let (resource, (namespace, name)) = self.objects.get(uid)?;
        let resource = &self.resources[*resource];
        Some((resource, Some(namespace.as_str()).filter(|_| resource.scope == Scope::Namespaced), name))
    }

    fn read(&self, store: &Store, uid: &str) -> Option<std::sync::Arc<Value>> {
        let (resource, namespace, name) = self.place(uid)?;
        store.get(resource, namespace, name).ok().filter(|object| object["metadata"]["uid"] == uid)
    }

    fn change(&self, store: &Store, uid: &str, change: impl FnOnce(&mut Value)) {
        let Some((resource, namespace, name)) = self.place(uid) else { return };
        let done = store.modify(resource, namespace, name, |object| {
            if object["metadata"]["uid"] == uid {
                change(object);
            }
            Ok(())
        });
        if let Err(fault) = done {
            tracing::debug!(%fault, "object went away before it was let go of");
        }
    }

    fn delete(&self, store: &Store, uid: &str, options: &DeleteOptions) {
        let Some((resource, namespace, name)) = self.place(uid) else { return };
        let deleting = self.read(store, uid).is_none_or(|object| object["metadata"]["deletionTimestamp"].is_string());
        if deleting {
            return;
        }
        let options = DeleteOptions { uid: Some(uid.to_owned()), ..options.clone() };
        if let Err(fault) = store.delete(resource, namespace, name, &options) {
            tracing::debug!(%fault, "dependent went away meanwhile");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn resource(group: &str, kind: &str, plural: &str) -> Resource {
        Resource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            scope: Scope::Namespaced,
        }
    }

    /// A ReplicaSet that owns a ConfigMap, and the collector at work on them.
    fn family() -> (Store, Resource, Resource, tokio::task::JoinHandle<()>) {
        let store = Store::default();
        let (sets, maps) = (resource("apps", "ReplicaSet", "replicasets"), resource("", "ConfigMap", "configmaps"));
        let owner = store.create(&sets, Some("n"), json!({"metadata": {"name": "owner"}})).expect("owner");
        let reference = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "owner", "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": true});
        store.create(&maps, Some("n"), json!({"metadata": {"name": "child", "ownerReferences": [reference]}})).expect("child");
        let collector = tokio::spawn(run(store.clone()));
        (store, sets, maps, collector)
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never happened: {what}");
    }

    fn policy(name: &str) -> DeleteOptions {
        DeleteOptions { propagation_policy: Some(name.to_owned()), ..DeleteOptions::default() }
    }

    #[tokio::test]
    async fn background_takes_the_dependents_along() {
        let (store, sets, maps, _collector) = family();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(store.get(&maps, Some("n"), "child").is_ok(), "a child whose owner lives stays");
        store.delete(&sets, Some("n"), "owner", &DeleteOptions::default()).expect("deleted");
        until("the child is gone", || store.get(&maps, Some("n"), "child").is_err()).await;
    }

    #[tokio::test]
    async fn foreground_takes_the_dependents_first() {
        let (store, sets, maps, _collector) = family();
        let hold = |finalizers: Value| {
            store
                .modify(&maps, Some("n"), "child", |object| {
                    object["metadata"]["finalizers"] = finalizers;
                    Ok(())
                })
                .expect("changed");
        };
        hold(json!(["test/hold"]));
        store.delete(&sets, Some("n"), "owner", &policy("Foreground")).expect("deleted");
        until("the child is being deleted", || {
            store.get(&maps, Some("n"), "child").is_ok_and(|o| o["metadata"]["deletionTimestamp"].is_string())
        })
        .await;
        assert!(store.get(&sets, Some("n"), "owner").is_ok(), "the owner waits for its dependents");
        hold(json!([]));
        until("both are gone", || store.get(&sets, Some("n"), "owner").is_err() && store.get(&maps, Some("n"), "child").is_err()).await;
    }

    #[tokio::test]
    async fn orphan_lets_the_dependents_live() {
        let (store, sets, maps, _collector) = family();
        store.delete(&sets, Some("n"), "owner", &policy("Orphan")).expect("deleted");
        until("the owner is gone", || store.get(&sets, Some("n"), "owner").is_err()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let child = store.get(&maps, Some("n"), "child").expect("the child lives");
        assert!(child["metadata"]["ownerReferences"].is_null());
    }
}
