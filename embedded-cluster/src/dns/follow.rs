//! Keeps the zone as the API says: Namespaces, Services and EndpointSlices.

#[cfg(test)]
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{RwLock, watch};

use super::log;
use super::zone::{EndpointEntry, Port, ServiceEntry, ServiceKey, Zone};

/// The zone that queries are answered from.
pub(super) type SharedZone = Arc<RwLock<Zone>>;

/// Follows all three kinds for ever; `synced` counts those that were listed once.
pub(super) async fn run(client: Client, zone: SharedZone, synced: watch::Sender<usize>) {
    tokio::join!(
        follow(watch_all::<Namespace>(&client), &zone, &synced, apply_namespace, |zone| zone.namespaces.clear()),
        follow(watch_all::<Service>(&client), &zone, &synced, apply_service, |zone| zone.services.clear()),
        follow(watch_all::<EndpointSlice>(&client), &zone, &synced, apply_slice, |zone| zone.endpoints.clear()),
    );
}

fn watch_all<K>(client: &Client) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff()
}

/// `present` is false when the object is gone.
type Apply<K> = fn(&mut Zone, K, bool);

async fn follow<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    zone: &SharedZone,
    synced: &watch::Sender<usize>,
    apply: Apply<K>,
    clear: fn(&mut Zone),
) {
    let mut events = std::pin::pin!(events);
    let mut listed: Vec<K> = Vec::new();
    let mut first = true;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => listed.push(object),
            Ok(watcher::Event::InitDone) => {
                // Answers stay as they were until the new list is whole.
                let mut zone = zone.write().await;
                clear(&mut zone);
                listed.drain(..).for_each(|object| apply(&mut zone, object, true));
                if std::mem::take(&mut first) {
                    synced.send_modify(|count| *count += 1);
                }
            }
            Ok(watcher::Event::Apply(object)) => apply(&mut *zone.write().await, object, true),
            Ok(watcher::Event::Delete(object)) => apply(&mut *zone.write().await, object, false),
            Err(error) => log(&format!("[ERROR] plugin/kubernetes: {error}")),
        }
    }
}

fn apply_namespace(zone: &mut Zone, namespace: Namespace, present: bool) {
    let Some(name) = namespace.metadata.name else { return };
    if present {
        zone.namespaces.insert(name);
    } else {
        zone.namespaces.remove(&name);
    }
}

fn apply_service(zone: &mut Zone, service: Service, present: bool) {
    let key = (service.metadata.namespace.unwrap_or_default(), service.metadata.name.unwrap_or_default());
    let Some(spec) = service.spec.filter(|_| present) else {
        zone.services.remove(&key);
        return;
    };
    let external = spec.type_.as_deref() == Some("ExternalName");
    let ports = spec.ports.into_iter().flatten().map(|port| Port {
        name: port.name.unwrap_or_default().to_lowercase(),
        protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
        number: u16::try_from(port.port).unwrap_or(0),
    });
    let entry = ServiceEntry {
        cluster_ip: spec.cluster_ip.and_then(|ip| ip.parse().ok()).filter(|_| !external),
        external_name: spec.external_name.filter(|_| external),
        ports: ports.collect(),
    };
    zone.services.insert(key, entry);
}

fn apply_slice(zone: &mut Zone, slice: EndpointSlice, present: bool) {
    let metadata = slice.metadata;
    let service = metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name")).cloned();
    let (Some(service), Some(name)) = (service, metadata.name) else { return };
    let key: ServiceKey = (metadata.namespace.unwrap_or_default(), service);
    if !present || slice.address_type != "IPv4" {
        if let Some(slices) = zone.endpoints.get_mut(&key) {
            slices.remove(&name);
            if slices.is_empty() {
                zone.endpoints.remove(&key);
            }
        }
        return;
    }
    let ports: Vec<Port> = slice
        .ports
        .into_iter()
        .flatten()
        .map(|port| Port {
            name: port.name.unwrap_or_default().to_lowercase(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
            number: port.port.and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
        })
        .collect();
    let ready = slice.endpoints.into_iter().filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
    let entries = ready.flat_map(|endpoint| {
        let (hostname, ports) = (endpoint.hostname, ports.clone());
        endpoint.addresses.into_iter().filter_map(move |address| {
            let ip = address.parse().ok()?;
            let hostname = hostname.clone().unwrap_or_else(|| address.replace('.', "-"));
            Some(EndpointEntry { ip, hostname: hostname.to_lowercase(), ports: ports.clone() })
        })
    });
    let entries: Vec<EndpointEntry> = entries.collect();
    zone.endpoints.entry(key).or_default().insert(name, entries);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(endpoints: Value) -> EndpointSlice {
        let metadata = json!({"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}});
        let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]});
        serde_json::from_value(slice).expect("an EndpointSlice")
    }

    #[test]
    fn only_ready_endpoints_are_named() {
        let mut zone = Zone::new("cluster.local");
        let endpoints = json!([
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.3"], "conditions": {}, "hostname": "Host"},
        ]);
        apply_slice(&mut zone, slice(endpoints), true);
        let seen: Vec<_> = zone.endpoints.values().flat_map(BTreeMap::values).flatten().map(|e| e.hostname.as_str()).collect();
        assert_eq!(seen, ["10-0-0-1", "host"]);
        apply_slice(&mut zone, slice(json!([])), false);
        assert!(zone.endpoints.is_empty());
    }
}
