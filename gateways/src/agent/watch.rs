//! Following the API: one reflector for each kind of object, all of them ringing one bell.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        utils::Backoff,
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinSet};

use super::log;
use crate::{
    manifests::{GATEWAY_NAMESPACE, SETTINGS_CONFIG_MAP},
    model::Objects,
};

/// The objects of the cluster as last heard of.
#[derive(Debug)]
pub(super) struct Following {
    ingresses: Store<Ingress>,
    classes: Store<IngressClass>,
    services: Store<Service>,
    endpoint_slices: Store<EndpointSlice>,
    secrets: Store<Secret>,
    settings: Store<ConfigMap>,
    changed: Arc<Notify>,
    // Ends the reflectors when dropped.
    _tasks: JoinSet<()>,
}

impl Following {
    /// Starts following, and returns when the first list of every kind has come.
    pub async fn start(client: &Client) -> Self {
        let changed = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        let any = watcher::Config::default;
        let settings = any().fields(&format!("metadata.name={SETTINGS_CONFIG_MAP}"));
        let following = Self {
            ingresses: follow(Api::all(client.clone()), any(), &changed, &mut tasks),
            classes: follow(Api::all(client.clone()), any(), &changed, &mut tasks),
            services: follow(Api::all(client.clone()), any(), &changed, &mut tasks),
            endpoint_slices: follow(Api::all(client.clone()), any(), &changed, &mut tasks),
            secrets: follow(Api::all(client.clone()), any(), &changed, &mut tasks),
            settings: follow(Api::namespaced(client.clone(), GATEWAY_NAMESPACE), settings, &changed, &mut tasks),
            changed,
            _tasks: tasks,
        };
        // These fail only when a writer is gone, which lives as long as its task does.
        let _ = tokio::join!(
            following.ingresses.wait_until_ready(),
            following.classes.wait_until_ready(),
            following.services.wait_until_ready(),
            following.endpoint_slices.wait_until_ready(),
            following.secrets.wait_until_ready(),
            following.settings.wait_until_ready(),
        );
        following
    }

    /// Returns after something has changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn objects(&self) -> Objects {
        Objects {
            ingresses: self.ingresses.state(),
            classes: self.classes.state(),
            services: self.services.state(),
            endpoint_slices: self.endpoint_slices.state(),
            secrets: self.secrets.state(),
            settings: self.settings.state().into_iter().next(),
        }
    }
}

fn follow<K>(api: Api<K>, config: watcher::Config, changed: &Arc<Notify>, tasks: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let changed = Arc::clone(changed);
    tasks.spawn(async move {
        let mut events = watcher(api, config).backoff(Patience::default()).reflect(writer).boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => changed.notify_one(),
                Err(error) => log(&format!("cannot follow {}: {error}", K::plural(&()))),
            }
        }
    });
    store
}

/// Waits between attempts: from 50 ms to 2 s. kube's own goes to 30 s, which suits clusters that serve thousands of controllers; here an
/// API server that comes back is to be noticed at once.
#[derive(Debug, Default)]
struct Patience {
    failures: u32,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(50) * 2u32.pow(self.failures.min(6));
        self.failures += 1;
        Some(wait.min(Duration::from_secs(2)))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.failures = 0;
    }
}
