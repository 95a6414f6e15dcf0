//! The life of namespaces: what each has from the start, and how it is emptied before it goes.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, NamespaceSpec, NamespaceStatus, Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::objects::{Key, Objects, key_of};
use super::reconcile::{Outcome, Trigger, drive};
use crate::store::{DeleteOptions, Resource, Scope, Store};

const FINALIZER: &str = "kubernetes";

/// Owners are emptied before what they own, so that no controller still at work makes anything again; what is not
/// named here follows in any order, and events come last.
const OWNERS_FIRST: &[&str] = &[
    "horizontalpodautoscalers",
    "cronjobs",
    "jobs",
    "deployments",
    "statefulsets",
    "daemonsets",
    "replicasets",
    "replicationcontrollers",
    "services",
    "endpointslices",
    "endpoints",
];

/// Enough of a [`Resource`] to find its objects: storage is keyed by group and plural.
pub(super) fn stored(group: &str, plural: &str, scope: Scope) -> Resource {
    Resource { group: group.to_owned(), version: "v1".to_owned(), kind: String::new(), plural: plural.to_owned(), scope }
}

/// Every namespaced resource type there is, custom ones included.
pub(super) fn namespaced_resources(definitions: &Objects<CustomResourceDefinition>) -> Vec<Resource> {
    let custom = definitions
        .list(None)
        .into_iter()
        .filter(|crd| crd.spec.scope == "Namespaced")
        .map(|crd| stored(&crd.spec.group, &crd.spec.names.plural, Scope::Namespaced));
    let place = |resource: &Resource| match resource.plural.as_str() {
        "events" => usize::MAX,
        plural => OWNERS_FIRST.iter().position(|known| *known == plural).unwrap_or(OWNERS_FIRST.len()),
    };
    let mut built_in: Vec<Resource> = crate::api::served_resources().filter(|resource| resource.scope == Scope::Namespaced).collect();
    built_in.sort_by_key(place);
    custom.chain(built_in).collect()
}

/// Runs for ever.
pub(super) async fn run(store: Store, ca_certificate: String) {
    let namespaces: Objects<Namespace> = Objects::new(&store);
    let controller = Controller {
        store: store.clone(),
        accounts: Objects::new(&store),
        config_maps: Objects::new(&store),
        definitions: Objects::new(&store),
        namespaces: namespaces.clone(),
        ca_certificate,
    };
    let in_its_namespace = |object: &serde_json::Value| vec![(String::new(), key_of(object).0)];
    let triggers = vec![
        Trigger::itself(namespaces.resource()),
        Trigger::new(controller.accounts.resource(), in_its_namespace),
        Trigger::new(controller.config_maps.resource(), in_its_namespace),
        // Pods are what an emptied namespace waits for longest.
        Trigger::new(&Resource::of::<Pod>(), in_its_namespace),
    ];
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    store: Store,
    namespaces: Objects<Namespace>,
    accounts: Objects<ServiceAccount>,
    config_maps: Objects<ConfigMap>,
    definitions: Objects<CustomResourceDefinition>,
    ca_certificate: String,
}

impl Controller {
    fn reconcile(&self, key: &Key) -> Outcome {
        let Some(namespace) = self.namespaces.get("", &key.1) else { return Outcome::Done };
        if namespace.metadata.deletion_timestamp.is_some() {
            return self.empty(key);
        }
        let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
        let held = namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()).any(|f| f == FINALIZER);
        if phase != Some("Active") || !held {
            let completed = self.namespaces.modify(key, |namespace| {
                if namespace.metadata.deletion_timestamp.is_some() {
                    return;
                }
                let finalizers = namespace.spec.get_or_insert_with(NamespaceSpec::default).finalizers.get_or_insert_default();
                if !finalizers.iter().any(|f| f == FINALIZER) {
                    finalizers.push(FINALIZER.to_owned());
                }
                namespace.status.get_or_insert_with(NamespaceStatus::default).phase = Some("Active".to_owned());
            });
            if let Err(fault) = completed {
                tracing::debug!(%fault, namespace = key.1, "namespace went away meanwhile");
            }
        }
        self.give_account(&key.1);
        self.give_certificate(&key.1);
        Outcome::Done
    }

    fn give_account(&self, namespace: &str) {
        if self.accounts.get(namespace, "default").is_none() {
            let account = ServiceAccount { metadata: named("default", namespace), ..ServiceAccount::default() };
            let _ = self.accounts.create(namespace, &account);
        }
    }

    fn give_certificate(&self, namespace: &str) {
        const NAME: &str = "kube-root-ca.crt";
        let data = || Some([("ca.crt".to_owned(), self.ca_certificate.clone())].into());
        match self.config_maps.get(namespace, NAME) {
            None => {
                let mut metadata = named(NAME, namespace);
                metadata.annotations = Some(
                    [(
                        "kubernetes.io/description".to_owned(),
                        "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
                         internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
                         clusters."
                            .to_owned(),
                    )]
                    .into(),
                );
                let _ = self.config_maps.create(namespace, &ConfigMap { metadata, data: data(), ..ConfigMap::default() });
            }
            Some(map) if map.data != data() => {
                let _ = self.config_maps.modify(&(namespace.to_owned(), NAME.to_owned()), |map| map.data = data());
            }
            Some(_) => {}
        }
    }

    /// Deletes what is in the namespace; once nothing is left, lets go of it.
    fn empty(&self, key: &Key) -> Outcome {
        let mut left = 0;
        for resource in namespaced_resources(&self.definitions) {
            for object in self.store.list(&resource, Some(&key.1)).items {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let gone = if object["metadata"]["deletionTimestamp"].is_string() {
                    false
                } else {
                    self.store.delete(&resource, Some(&key.1), name, &DeleteOptions::default()).is_ok_and(|(_, gone)| gone)
                };
                left += usize::from(!gone);
            }
        }
        if left > 0 {
            // Pods report by themselves; this is for finalizers of other kinds.
            return Outcome::Again(Duration::from_millis(200));
        }
        let released = self.namespaces.modify(key, |namespace| {
            if let Some(finalizers) = namespace.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
                finalizers.retain(|f| f != FINALIZER);
            }
        });
        if let Err(fault) = released {
            tracing::debug!(%fault, namespace = key.1, "namespace already gone");
        }
        Outcome::Done
    }
}

fn named(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() }
}
