//! Hand-written Endpoints of Services without a selector, mirrored into EndpointSlices, which is what everything that
//! routes reads (`endpointslicemirroring-controller`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::objects::{Key, Objects, key_of};
use super::pods::{controlled_by, generated_name, key};
use super::reconcile::{Outcome, Trigger, drive};
use crate::store::{DeleteOptions, Store};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Runs for ever.
pub(super) async fn run(store: Store, services: Objects<Service>, slices: Objects<EndpointSlice>) {
    let endpoints: Objects<Endpoints> = Objects::new(&store);
    let triggers = vec![
        Trigger::itself(endpoints.resource()),
        Trigger::itself(services.resource()),
        Trigger::new(slices.resource(), |slice| {
            let ours = slice["metadata"]["labels"][MANAGED_BY] == MANAGER;
            let service = slice["metadata"]["labels"][SERVICE_NAME].as_str().filter(|_| ours);
            service.map(|name| (key_of(slice).0, name.to_owned())).into_iter().collect()
        }),
    ];
    let controller = Controller { endpoints, services, slices };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    endpoints: Objects<Endpoints>,
    services: Objects<Service>,
    slices: Objects<EndpointSlice>,
}

impl Controller {
    fn reconcile(&self, service_key: &Key) -> Outcome {
        let mut existing = self.mirrored(service_key);
        for (endpoints, slice) in self.wanted(service_key) {
            match existing.iter().position(|known| known.ports == slice.ports) {
                Some(index) => {
                    let known = existing.remove(index);
                    if known.endpoints != slice.endpoints {
                        let _ = self.slices.modify(&key(&*known), |known| known.endpoints = slice.endpoints);
                    }
                }
                None => {
                    let namespace = endpoints.metadata.namespace.as_deref().unwrap_or_default();
                    if let Err(fault) = self.slices.create(namespace, &slice) {
                        tracing::debug!(%fault, "Endpoints not mirrored");
                    }
                }
            }
        }
        for surplus in existing {
            let _ = self.slices.delete(&key(&*surplus), &DeleteOptions::default());
        }
        Outcome::Done
    }

    fn mirrored(&self, service: &Key) -> Vec<Arc<EndpointSlice>> {
        let is = |slice: &EndpointSlice, label: &str, value: &str| {
            slice.metadata.labels.as_ref().and_then(|l| l.get(label)).is_some_and(|v| v == value)
        };
        let all = self.slices.list_labelled(&service.0, &service.1);
        all.into_iter().filter(|slice| is(slice, SERVICE_NAME, &service.1) && is(slice, MANAGED_BY, MANAGER)).collect()
    }

    /// One slice for each subset, when the Endpoints are to be mirrored at all.
    fn wanted(&self, service_key: &Key) -> Vec<(Arc<Endpoints>, EndpointSlice)> {
        let (Some(endpoints), Some(service)) =
            (self.endpoints.get(&service_key.0, &service_key.1), self.services.get(&service_key.0, &service_key.1))
        else {
            return Vec::new();
        };
        let has_selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
        let skipped = endpoints.metadata.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|v| v == "true");
        if has_selector || skipped {
            return Vec::new();
        }
        endpoints.subsets.iter().flatten().map(|subset| (endpoints.clone(), slice(&endpoints, subset))).collect()
    }
}

fn slice(endpoints: &Endpoints, subset: &EndpointSubset) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels: BTreeMap<String, String> = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    let mirrored = ready.chain(unready).map(|(address, ready)| Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(ready), terminating: Some(false) }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    });
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    });
    let prefix = format!("{name}-");
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: mirrored.collect(),
        ports: Some(ports.collect()),
        metadata: ObjectMeta {
            name: Some(generated_name(&prefix)),
            generate_name: Some(prefix),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controlled_by(endpoints)]),
            ..ObjectMeta::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mirror(service: Value, endpoints: Value) -> Vec<Value> {
        let store = Store::default();
        let controller = Controller { endpoints: Objects::new(&store), services: Objects::new(&store), slices: Objects::new(&store) };
        controller.services.create("n", &serde_json::from_value(service).expect("a Service")).expect("created");
        controller.endpoints.create("n", &serde_json::from_value(endpoints).expect("Endpoints")).expect("created");
        let name = ("n".to_owned(), "db".to_owned());
        controller.reconcile(&name);
        controller.reconcile(&name);
        controller.slices.list(Some("n")).iter().map(|slice| serde_json::to_value(&**slice).expect("JSON")).collect()
    }

    #[test]
    fn only_services_without_selector_are_mirrored_and_once() {
        let subsets = json!([{"addresses": [{"ip": "10.9.0.1"}], "notReadyAddresses": [{"ip": "10.9.0.2"}], "ports": [{"port": 5432}]}]);
        let endpoints = json!({"metadata": {"name": "db"}, "subsets": subsets});
        let bare = json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}});
        let slices = mirror(bare.clone(), endpoints.clone());
        assert_eq!(slices.len(), 1);
        let seen: Vec<_> =
            slices[0]["endpoints"].as_array().expect("a list").iter().map(|e| (&e["addresses"][0], &e["conditions"]["ready"])).collect();
        assert_eq!(seen, [(&json!("10.9.0.1"), &json!(true)), (&json!("10.9.0.2"), &json!(false))]);
        let selecting = json!({"metadata": {"name": "db"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 5432}]}});
        assert_eq!(mirror(selecting, endpoints.clone()), [] as [Value; 0]);
        let mut skipped = endpoints;
        skipped["metadata"]["labels"] = json!({SKIP: "true"});
        assert_eq!(mirror(bare, skipped), [] as [Value; 0]);
    }
}
