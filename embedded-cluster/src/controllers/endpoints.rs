//! EndpointSlices and Endpoints of Services with a selector, computed as `staging/src/k8s.io/endpointslice` and
//! `pkg/controller/endpoint` of Kubernetes do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as LegacyPort, EndpointSubset, Endpoints, Node, ObjectReference, Pod, Service, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::objects::{Key, Objects, key_of};
use super::pods::{controlled_by, generated_name, is_finished, is_ready, is_terminating, key};
use super::reconcile::{Outcome, Trigger, drive};
use super::selectors::matches_map;
use super::trigger_time::{TriggerTimes, annotate};
use crate::store::{DeleteOptions, Store};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// `--max-endpoints-per-slice`.
const PER_SLICE: usize = 100;

/// Which Services have had a pod in their endpoints, so that a pod that leaves is noticed too.
#[derive(Default)]
struct Members {
    services_of: BTreeMap<Key, BTreeSet<Key>>,
    pods_of: BTreeMap<Key, BTreeSet<Key>>,
}

impl Members {
    fn set(&mut self, service: &Key, pods: BTreeSet<Key>) {
        let before = if pods.is_empty() { self.pods_of.remove(service) } else { self.pods_of.insert(service.clone(), pods.clone()) };
        for gone in before.iter().flatten().filter(|pod| !pods.contains(*pod)) {
            if let Some(services) = self.services_of.get_mut(gone) {
                services.remove(service);
                if services.is_empty() {
                    self.services_of.remove(gone);
                }
            }
        }
        for pod in pods {
            self.services_of.entry(pod).or_default().insert(service.clone());
        }
    }
}

/// Runs for ever.
pub(super) async fn run(store: Store, pods: Objects<Pod>, services: Objects<Service>, slices: Objects<EndpointSlice>) {
    let members: Arc<Mutex<Members>> = Arc::default();
    let (known, candidates) = (members.clone(), services.clone());
    let triggers = vec![
        Trigger::itself(services.resource()),
        Trigger::new(slices.resource(), |slice| {
            let service = slice["metadata"]["labels"][SERVICE_NAME].as_str();
            service.map(|name| (key_of(slice).0, name.to_owned())).into_iter().collect()
        }),
        Trigger::new(pods.resource(), move |pod| {
            let pod_key = key_of(pod);
            let labels = pod["metadata"]["labels"].as_object();
            let mut concerned: BTreeSet<Key> =
                known.lock().unwrap_or_else(PoisonError::into_inner).services_of.get(&pod_key).cloned().unwrap_or_default();
            for service in candidates.list(Some(&pod_key.0)) {
                let Some(selector) = selector(&service) else { continue };
                if selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)).and_then(|l| l.as_str()) == Some(v)) {
                    concerned.insert(key(&*service));
                }
            }
            concerned.into_iter().collect()
        }),
    ];
    let (endpoints, nodes) = (Objects::new(&store), Objects::new(&store));
    let controller = Controller { pods, services, slices, endpoints, nodes, members, trigger_times: TriggerTimes::default() };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    pods: Objects<Pod>,
    services: Objects<Service>,
    slices: Objects<EndpointSlice>,
    endpoints: Objects<Endpoints>,
    nodes: Objects<Node>,
    members: Arc<Mutex<Members>>,
    trigger_times: TriggerTimes,
}

fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

impl Controller {
    fn reconcile(&self, service_key: &Key) -> Outcome {
        let Some(service) = self.services.get(&service_key.0, &service_key.1) else {
            for slice in self.slices_of(service_key) {
                self.remove(&slice);
            }
            if self.endpoints.get(&service_key.0, &service_key.1).is_some() {
                let _ = self.endpoints.delete(service_key, &DeleteOptions::default());
            }
            self.remember(service_key, BTreeSet::new());
            self.trigger_times.forget(service_key);
            return Outcome::Done;
        };
        // Without a selector whoever made the Service writes its endpoints too.
        let Some(selector) = selector(&service) else { return Outcome::Done };
        let pods: Vec<Arc<Pod>> =
            self.pods.list(Some(&service_key.0)).into_iter().filter(|pod| matches_map(selector, pod.metadata.labels.as_ref())).collect();
        self.remember(service_key, pods.iter().map(|pod| key(&**pod)).collect());
        let triggered = self.trigger_times.since_last_look(&service, &pods);
        let wanted = groups(&service, &pods, &|node| self.zone(node));
        self.write_slices(&service, self.slices_of(service_key), wanted, triggered);
        self.write_endpoints(&service, &pods, triggered);
        Outcome::Done
    }

    fn slices_of(&self, service: &Key) -> Vec<Arc<EndpointSlice>> {
        let label = |slice: &EndpointSlice, name: &str| slice.metadata.labels.as_ref().and_then(|l| l.get(name)).cloned();
        self.slices
            .list_labelled(&service.0, &service.1)
            .into_iter()
            .filter(|s| label(s, SERVICE_NAME).as_ref() == Some(&service.1) && label(s, MANAGED_BY).as_deref() == Some(MANAGER))
            .collect()
    }

    fn zone(&self, node: &str) -> Option<String> {
        self.nodes.get("", node)?.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
    }

    fn remember(&self, service: &Key, pods: BTreeSet<Key>) {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).set(service, pods);
    }

    fn remove(&self, slice: &EndpointSlice) {
        let _ = self.slices.delete(&key(slice), &DeleteOptions::default());
    }

    /// Keeps slices whose ports fit, fills them anew, makes what is missing and removes what is left over. A Service
    /// without pods keeps one empty slice, as on a real cluster.
    fn write_slices(
        &self,
        service: &Service,
        existing: Vec<Arc<EndpointSlice>>,
        wanted: Vec<(Vec<EndpointPort>, Vec<Endpoint>)>,
        triggered: Option<Timestamp>,
    ) {
        let update = |slice: &EndpointSlice, labels: &BTreeMap<String, String>, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>| {
            let unchanged = slice.endpoints == endpoints
                && slice.ports.clone().unwrap_or_default() == ports
                && slice.metadata.labels.as_ref() == Some(labels);
            if !unchanged {
                let _ = self.slices.modify(&key(slice), |slice| {
                    slice.endpoints = endpoints;
                    slice.ports = Some(ports);
                    slice.metadata.labels = Some(labels.clone());
                    annotate(&mut slice.metadata.annotations, triggered);
                });
            }
        };
        let mut left: Vec<Arc<EndpointSlice>> = existing;
        let labels = slice_labels(service);
        let mut missing = Vec::new();
        for (ports, endpoints) in wanted {
            let mut chunks: Vec<Vec<Endpoint>> = endpoints.chunks(PER_SLICE).map(<[Endpoint]>::to_vec).collect();
            if chunks.is_empty() {
                chunks.push(Vec::new());
            }
            for endpoints in chunks {
                // A slice that shares endpoints is updated rather than replaced, so that its name stays.
                let fit = left.iter().position(|slice| same_ports(slice, &ports));
                match fit {
                    Some(index) => update(&left.remove(index), &labels, ports.clone(), endpoints),
                    None => missing.push((ports.clone(), endpoints)),
                }
            }
        }
        for (ports, endpoints) in missing {
            match left.pop() {
                Some(slice) => update(&slice, &labels, ports, endpoints),
                None => self.create_slice(service, &labels, ports, endpoints, triggered),
            }
        }
        left.iter().for_each(|slice| self.remove(slice));
    }

    fn create_slice(
        &self,
        service: &Service,
        labels: &BTreeMap<String, String>,
        ports: Vec<EndpointPort>,
        endpoints: Vec<Endpoint>,
        triggered: Option<Timestamp>,
    ) {
        let prefix = format!("{}-", service.metadata.name.as_deref().unwrap_or_default());
        let mut slice = EndpointSlice {
            address_type: "IPv4".to_owned(),
            endpoints,
            ports: Some(ports),
            metadata: ObjectMeta {
                name: Some(generated_name(&prefix)),
                generate_name: Some(prefix),
                namespace: service.metadata.namespace.clone(),
                labels: Some(labels.clone()),
                owner_references: Some(vec![controlled_by(service)]),
                ..ObjectMeta::default()
            },
        };
        annotate(&mut slice.metadata.annotations, triggered);
        if let Err(fault) = self.slices.create(service.metadata.namespace.as_deref().unwrap_or_default(), &slice) {
            tracing::debug!(%fault, "EndpointSlice not made");
        }
    }

    fn write_endpoints(&self, service: &Service, pods: &[Arc<Pod>], triggered: Option<Timestamp>) {
        let service_key = key(service);
        let subsets = subsets(service, pods);
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        if is_headless(service) {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        labels.insert("endpoints.kubernetes.io/managed-by".to_owned(), "endpoint-controller".to_owned());
        let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
        match self.endpoints.get(&service_key.0, &service_key.1) {
            None => {
                let mut endpoints = Endpoints {
                    metadata: ObjectMeta {
                        name: Some(service_key.1.clone()),
                        namespace: Some(service_key.0.clone()),
                        labels: Some(labels),
                        ..ObjectMeta::default()
                    },
                    subsets,
                };
                annotate(&mut endpoints.metadata.annotations, triggered);
                let _ = self.endpoints.create(&service_key.0, &endpoints);
            }
            Some(current) if current.subsets != subsets || current.metadata.labels.as_ref() != Some(&labels) => {
                let _ = self.endpoints.modify(&service_key, |endpoints| {
                    endpoints.subsets = subsets;
                    endpoints.metadata.labels = Some(labels);
                    annotate(&mut endpoints.metadata.annotations, triggered);
                });
            }
            Some(_) => {}
        }
    }
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.cluster_ip.as_deref() == Some("None"))
}

fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

fn same_ports(slice: &EndpointSlice, ports: &[EndpointPort]) -> bool {
    slice.ports.as_deref().unwrap_or_default() == ports
}

/// Pods by the ports that the Service has on them: a named targetPort may be another number in each pod. Without any
/// pod there is one empty group, without ports, as Kubernetes makes it.
fn groups(service: &Service, pods: &[Arc<Pod>], zone: &dyn Fn(&str) -> Option<String>) -> Vec<(Vec<EndpointPort>, Vec<Endpoint>)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut groups: Vec<(Vec<EndpointPort>, Vec<Endpoint>)> = Vec::new();
    for pod in pods.iter().filter(|pod| belongs(pod, true)) {
        let ports = slice_ports(spec, pod);
        let endpoint = endpoint(service, pod, publish_not_ready, zone);
        match groups.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => groups.push((ports, vec![endpoint])),
        }
    }
    if groups.is_empty() {
        groups.push((Vec::new(), Vec::new()));
    }
    for (_, endpoints) in &mut groups {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    }
    groups
}

/// `ShouldPodBeInEndpoints`: it has an address, has not ended for good, and is not going away unless that counts.
fn belongs(pod: &Pod, with_terminating: bool) -> bool {
    let addressed = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).is_some_and(|ip| !ip.is_empty());
    addressed && !is_finished(pod) && (with_terminating || !is_terminating(pod))
}

fn endpoint(service: &Service, pod: &Pod, publish_not_ready: bool, zone: &dyn Fn(&str) -> Option<String>) -> Endpoint {
    let serving = is_ready(pod);
    let terminating = is_terminating(pod);
    let node_name = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    Endpoint {
        addresses: vec![pod.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap_or_default()],
        conditions: Some(EndpointConditions {
            // A pod that is going away is not ready, whatever its probe says, unless not-ready addresses are published.
            ready: Some(publish_not_ready || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        zone: node_name.as_deref().and_then(zone),
        node_name,
        target_ref: Some(target(pod)),
        ..Endpoint::default()
    }
}

/// Only pods that ask for a name below this very Service get one (`spec.hostname` with `spec.subdomain`).
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty())?;
    (spec.subdomain == service.metadata.name).then_some(hostname)
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Ports whose name the pod does not have are left out.
fn slice_ports(spec: &ServiceSpec, pod: &Pod) -> Vec<EndpointPort> {
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let number = target_port(port.target_port.as_ref(), port.port, &protocol, pod)?;
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number),
            protocol: Some(protocol),
            app_protocol: port.app_protocol.clone(),
        })
    });
    ports.collect()
}

/// `FindPort`: a number is taken as it is, a name is looked up among the pod's container ports; sidecars (init
/// containers that restart) count too.
pub(super) fn target_port(target: Option<&IntOrString>, service_port: i32, protocol: &str, pod: &Pod) -> Option<i32> {
    match target {
        None => Some(service_port),
        Some(IntOrString::Int(0)) => Some(service_port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(service_port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
            ports
                .into_iter()
                .find(|p| p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol)
                .map(|p| p.container_port)
        }
    }
}

/// The older Endpoints object: terminating pods are not in it, pods that are not ready apart.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or(false);
    let headless_without_ports = is_headless(service) && spec.ports.as_ref().is_none_or(Vec::is_empty);
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    for pod in pods.iter().filter(|pod| belongs(pod, publish_not_ready)) {
        let ports: Vec<LegacyPort> = slice_ports(spec, pod)
            .into_iter()
            .map(|p| LegacyPort {
                name: p.name.filter(|name| !name.is_empty()),
                port: p.port.unwrap_or_default(),
                protocol: p.protocol,
                app_protocol: p.app_protocol,
            })
            .collect();
        if ports.is_empty() && !headless_without_ports {
            continue;
        }
        let address = EndpointAddress {
            ip: pod.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap_or_default(),
            hostname: hostname(service, pod),
            node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
            target_ref: Some(target(pod)),
        };
        let ports = Some(ports).filter(|ports| !ports.is_empty());
        let index = subsets.iter().position(|s| s.ports == ports).unwrap_or_else(|| {
            subsets.push(EndpointSubset { ports, ..EndpointSubset::default() });
            subsets.len() - 1
        });
        let list = if publish_not_ready || is_ready(pod) { &mut subsets[index].addresses } else { &mut subsets[index].not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
    }
    subsets
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "shop", "namespace": "shop"}, "spec": spec})).expect("a Service")
    }

    fn pod(name: &str, ip: &str, ready: bool, extra: serde_json::Value) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"nodeName": "node-1", "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        for (field, fields) in extra.as_object().into_iter().flatten() {
            for (k, v) in fields.as_object().into_iter().flatten() {
                value[field][k] = v.clone();
            }
        }
        Arc::new(serde_json::from_value(value).expect("a Pod"))
    }

    fn conditions(endpoint: &Endpoint) -> (bool, bool, bool) {
        let c = endpoint.conditions.clone().unwrap_or_default();
        (c.ready.unwrap_or_default(), c.serving.unwrap_or_default(), c.terminating.unwrap_or_default())
    }

    const LEAVING: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn conditions_of_ready_unready_and_terminating_pods() {
        let service = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let pods = [
            pod("a", "10.0.0.1", true, json!({})),
            pod("b", "10.0.0.2", false, json!({})),
            pod("c", "10.0.0.3", true, json!({"metadata": {"deletionTimestamp": LEAVING}})),
            pod("d", "10.0.0.4", false, json!({"metadata": {"deletionTimestamp": LEAVING}})),
            pod("e", "10.0.0.5", false, json!({"status": {"phase": "Succeeded"}})),
        ];
        let groups = groups(&service, &pods, &|_| None);
        assert_eq!(groups.len(), 1);
        let seen: Vec<_> = groups[0].1.iter().map(|e| (e.addresses[0].as_str(), conditions(e))).collect();
        assert_eq!(
            seen,
            [
                ("10.0.0.1", (true, true, false)),
                ("10.0.0.2", (false, false, false)),
                ("10.0.0.3", (false, true, true)),
                ("10.0.0.4", (false, false, true)),
            ]
        );
        let subsets = subsets(&service, &pods);
        let ips = |list: &Option<Vec<EndpointAddress>>| list.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>();
        assert_eq!(ips(&subsets[0].addresses), ["10.0.0.1"], "Endpoints leave terminating pods out");
        assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.0.0.2"]);
    }

    #[test]
    fn publish_not_ready_addresses_makes_all_of_them_ready() {
        let service = service(json!({"publishNotReadyAddresses": true, "ports": [{"port": 80}]}));
        let pods = [pod("a", "10.0.0.1", false, json!({"metadata": {"deletionTimestamp": LEAVING}}))];
        assert_eq!(conditions(&groups(&service, &pods, &|_| None)[0].1[0]), (true, false, true));
    }

    #[test]
    fn a_named_port_is_each_pods_own_number() {
        let service = service(json!({"ports": [{"name": "web", "port": 80, "targetPort": "http"}]}));
        let other = json!({"spec": {"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 9090}]}]}});
        let none = json!({"spec": {"containers": [{"name": "app"}]}});
        let pods = [pod("a", "10.0.0.1", true, json!({})), pod("b", "10.0.0.2", true, other), pod("c", "10.0.0.3", true, none)];
        let seen: Vec<_> = groups(&service, &pods, &|_| None)
            .iter()
            .map(|(ports, endpoints)| (ports.iter().filter_map(|p| p.port).collect::<Vec<_>>(), endpoints[0].addresses[0].clone()))
            .collect();
        assert_eq!(seen, [(vec![8080], "10.0.0.1".to_owned()), (vec![9090], "10.0.0.2".to_owned()), (vec![], "10.0.0.3".to_owned()),]);
    }

    #[test]
    fn a_number_is_not_checked_against_container_ports() {
        let pod = pod("a", "10.0.0.1", true, json!({}));
        assert_eq!(target_port(Some(&IntOrString::Int(8081)), 80, "TCP", &pod), Some(8081));
        assert_eq!(target_port(None, 80, "TCP", &pod), Some(80));
        assert_eq!(target_port(Some(&IntOrString::String("nothing".to_owned())), 80, "TCP", &pod), None);
    }
}
