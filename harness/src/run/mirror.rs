//! The cluster's objects as they are right now, kept by watches: what waiting waits on, what evidence is taken from, and the
//! record of what happened to pods and endpoints meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Api;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::seen::Seen;
use super::timeline;
use crate::kubernetes::{Kubernetes, KubernetesError, ObjectRef};
use crate::signature::TimelineEvent;

/// Kinds that scenarios and evidence look at, with the plural that the API addresses them by.
const KINDS: &[(&str, &str, &str)] = &[
    ("v1", "Pod", "pods"),
    ("v1", "Service", "services"),
    ("v1", "ConfigMap", "configmaps"),
    ("v1", "Secret", "secrets"),
    ("v1", "Node", "nodes"),
    ("v1", "Event", "events"),
    ("apps/v1", "Deployment", "deployments"),
    ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    ("networking.k8s.io/v1", "Ingress", "ingresses"),
    ("networking.k8s.io/v1", "IngressClass", "ingressclasses"),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
];

/// Kind, namespace (empty for kinds without), name.
pub type Key = (String, String, String);

/// A consistent look at the objects; a copy shares them.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    objects: Arc<BTreeMap<Key, Arc<Value>>>,
}

impl Snapshot {
    /// All of a kind; `namespace`: `None` for all.
    pub fn of_kind<'a>(&'a self, kind: &'a str, namespace: Option<&'a str>) -> impl Iterator<Item = &'a Value> + 'a {
        self.objects
            .iter()
            .filter(move |(key, _)| key.0 == kind && namespace.is_none_or(|namespace| key.1 == namespace))
            .map(|(_, object)| &**object)
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned())).map(|object| &**object)
    }

    /// The first of these objects that is not seen yet as it was returned, or later; kinds that are not watched aside.
    pub fn lacks(&self, returned: &[Value]) -> Option<String> {
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse::<u64>().ok());
        let watched = |object: &&Value| KINDS.iter().any(|(_, kind, _)| object["kind"] == **kind);
        let behind = |object: &&Value| {
            let seen = self.objects.get(&key_of(object));
            seen.is_none_or(|seen| version(seen) < version(object))
        };
        returned.iter().filter(watched).find(behind).map(named)
    }

    /// The first of these deleted objects that is still seen as if nobody had deleted it. One of the same name that came after it is
    /// another.
    pub fn keeps(&self, deleted: &[Value]) -> Option<String> {
        let metadata = |object: &Value, field: &str| object["metadata"][field].clone();
        let untouched = |object: &&Value| {
            let seen = self.objects.get(&key_of(object));
            seen.is_some_and(|seen| metadata(seen, "uid") == metadata(object, "uid") && metadata(seen, "deletionTimestamp").is_null())
        };
        deleted.iter().find(untouched).map(named)
    }

    pub fn find(&self, object: &ObjectRef) -> Option<&Value> {
        self.get(&object.kind, object.namespace.as_deref().unwrap_or_default(), &object.name)
    }

    pub fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// For tests.
    pub fn from_objects(objects: impl IntoIterator<Item = Value>) -> Self {
        let objects = objects.into_iter().map(|object| (key_of(&object), Arc::new(object))).collect();
        Snapshot { objects: Arc::new(objects) }
    }
}

fn named(object: &Value) -> String {
    format!("{} {}", object["kind"], object["metadata"]["name"])
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    synced: usize,
    last_change: Option<Instant>,
    timeline: Vec<TimelineEvent>,
    trouble: Option<String>,
}

/// Follows the cluster until it is dropped.
pub struct Mirror {
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<u64>,
    namespaces: Arc<Option<BTreeSet<String>>>,
    _watches: JoinSet<()>,
}

impl Mirror {
    /// Starts the watches and waits until each has listed its kind.
    /// `namespaces`: those that are looked at, beside objects without any; `None` for all.
    pub async fn start(kubernetes: &Kubernetes, within: Duration, namespaces: Option<BTreeSet<String>>) -> Result<Self, KubernetesError> {
        let namespaces = Arc::new(namespaces);
        let state = Arc::new(Mutex::new(State::default()));
        let (notify, changed) = watch::channel(0);
        let notify = Arc::new(notify);
        let mut watches = JoinSet::new();
        for (api_version, kind, plural) in KINDS {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
            let api: Api<Seen> = Api::all_with(kubernetes.client().clone(), &resource);
            watches.spawn(follow(api, (api_version, kind), Arc::clone(&namespaces), Arc::clone(&state), Arc::clone(&notify)));
        }
        let mirror = Mirror { state, changed, namespaces, _watches: watches };
        mirror
            .wait(within, "the first list of every kind", |mirror| {
                let state = mirror.lock();
                (state.synced < KINDS.len()).then(|| {
                    let trouble = state.trouble.as_deref().map_or_else(String::new, |trouble| format!(" ({trouble})"));
                    format!("{} of {} kinds were listed{trouble}", state.synced, KINDS.len())
                })
            })
            .await?;
        Ok(mirror)
    }

    pub fn snapshot(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    /// Time since the last change of an object that says something about traffic (events and leases do not).
    pub fn quiet_for(&self) -> Duration {
        self.lock().last_change.map_or(Duration::MAX, |at| at.elapsed())
    }

    /// What happened to pods and endpoints since the last time this was asked: in a phase, from its change on.
    pub fn take_timeline(&self) -> Vec<TimelineEvent> {
        std::mem::take(&mut self.lock().timeline)
    }

    /// Whether objects of this namespace are looked at.
    pub fn sees(&self, namespace: &str) -> bool {
        self.namespaces.as_ref().as_ref().is_none_or(|namespaces| namespaces.contains(namespace))
    }

    /// A receiver that is told of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Waits until `pending` finds nothing left to wait for; it is asked anew after every change.
    ///
    /// # Errors
    /// `NotReached` with the last thing that was still pending.
    pub async fn wait(
        &self,
        within: Duration,
        what: &str,
        mut pending: impl FnMut(&Self) -> Option<String>,
    ) -> Result<(), KubernetesError> {
        let mut changed = self.changed.clone();
        let deadline = tokio::time::Instant::now() + within;
        loop {
            changed.mark_unchanged();
            let Some(last) = pending(self) else { return Ok(()) };
            let not_reached = |last| KubernetesError::NotReached { what: what.to_owned(), waited: within, last };
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(not_reached("the watches ended".into())),
                Err(_) => return Err(not_reached(pending(self).unwrap_or(last))),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn follow(
    api: Api<Seen>,
    (api_version, kind): (&'static str, &'static str),
    namespaces: Arc<Option<BTreeSet<String>>>,
    state: Arc<Mutex<State>>,
    notify: Arc<watch::Sender<u64>>,
) {
    let elsewhere = |object: &Seen| match (&*namespaces, object.namespace()) {
        (Some(namespaces), Some(namespace)) => !namespaces.contains(namespace),
        _ => false,
    };
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()));
    let mut listed: BTreeMap<Key, Arc<Value>> = BTreeMap::new();
    let mut synced = false;
    while let Some(event) = events.next().await {
        {
            let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match event {
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object) | watcher::Event::Delete(object))
                    if elsewhere(&object) =>
                {
                    continue;
                }
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    let object = typed(object, api_version, kind);
                    listed.insert(key_of(&object), Arc::new(object));
                }
                Ok(watcher::Event::InitDone) => {
                    // After a broken watch this is a new list: what is not in it has gone meanwhile.
                    let gone: Vec<Key> =
                        state.snapshot.objects.keys().filter(|key| key.0 == kind && !listed.contains_key(*key)).cloned().collect();
                    for key in gone {
                        state.change(key, None);
                    }
                    for (key, object) in std::mem::take(&mut listed) {
                        state.change(key, Some(object));
                    }
                    if !synced {
                        synced = true;
                        state.synced += 1;
                    }
                }
                Ok(watcher::Event::Apply(object)) => {
                    let object = typed(object, api_version, kind);
                    state.change(key_of(&object), Some(Arc::new(object)));
                }
                Ok(watcher::Event::Delete(object)) => state.change(key_of(&typed(object, api_version, kind)), None),
                // The watcher backs off and tries again by itself.
                Err(error) => state.trouble = Some(format!("watching {kind}: {error}")),
            }
        }
        notify.send_modify(|version| *version += 1);
    }
}

impl State {
    fn change(&mut self, key: Key, object: Option<Arc<Value>>) {
        let objects = Arc::make_mut(&mut self.snapshot.objects);
        let before = match &object {
            Some(object) => objects.insert(key.clone(), Arc::clone(object)),
            None => objects.remove(&key),
        };
        if before == object {
            return;
        }
        let says_something = match key.0.as_str() {
            "Event" | "Lease" => false,
            // Its status is a heartbeat; its links are annotations.
            "Node" => {
                let part = |node: &Option<Arc<Value>>, pointer: &str| node.as_ref().and_then(|node| node.pointer(pointer).cloned());
                ["/metadata/annotations", "/spec"].iter().any(|pointer| part(&before, pointer) != part(&object, pointer))
            }
            _ => true,
        };
        if says_something {
            self.last_change = Some(Instant::now());
        }
        self.timeline.extend(timeline::changes(&key, before.as_deref(), object.as_deref()));
    }
}

/// The items of a list do not say what they are.
fn typed(seen: Seen, api_version: &str, kind: &str) -> Value {
    let mut object = seen.object;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Value::Object(object)
}

fn key_of(object: &Value) -> Key {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_s_link_is_a_change_and_its_heartbeat_is_none() {
        let mut state = State::default();
        let mut changed_by = |annotations: Value, heartbeat: &str| {
            state.last_change = None;
            let node = json!({ "kind": "Node", "metadata": { "name": "a", "annotations": annotations }, "status": { "at": heartbeat } });
            state.change(key_of(&node), Some(Arc::new(node)));
            state.last_change.is_some()
        };
        changed_by(json!({}), "1");
        assert!(!changed_by(json!({}), "2"));
        assert!(changed_by(json!({ "gatelab.dev/pod-network": "down" }), "2"));
        assert!(!changed_by(json!({ "gatelab.dev/pod-network": "down" }), "3"));
    }

    #[test]
    fn a_deletion_is_seen_when_the_object_is_gone_going_or_another() {
        let ingress = |uid: &str, deleted: Option<&str>| {
            let mut object = json!({ "kind": "Ingress", "metadata": { "namespace": "shop", "name": "shop", "uid": uid } });
            if let Some(at) = deleted {
                object["metadata"]["deletionTimestamp"] = at.into();
            }
            object
        };
        let deleted = [ingress("1", None)];
        let keeps = |now: Option<Value>| Snapshot::from_objects(now).keeps(&deleted);
        assert!(keeps(Some(ingress("1", None))).is_some_and(|object| object.contains("shop")));
        assert_eq!(keeps(Some(ingress("1", Some("2026-11-29T03:00:00Z")))), None);
        assert_eq!(keeps(Some(ingress("2", None))), None);
        assert_eq!(keeps(None), None);
    }
}
