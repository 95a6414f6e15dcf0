//! The network controller: kube-proxy and the policy agent in one. Whatever changes, the whole plan is computed anew
//! from the current state and handed to the data plane when it differs from the last one.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::SelectAll;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use tokio::time::Instant;

use super::ApplyPlan;
use super::network_policy::isolations;
use super::objects::Objects;
use super::reconcile::follow;
use crate::network::{Link, NetworkPlan, Protocol, ServicePort};
use crate::store::Store;

/// `service.spec.sessionAffinityConfig.clientIP.timeoutSeconds` when unset.
const AFFINITY_TIMEOUT: Duration = Duration::from_secs(10_800);
/// Bound of the pause between two network plans: on a busy machine a plan takes long without costing more, and changes that
/// follow each other are not to wait for that twice.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// So many plans may follow each other at once. A single change is often several writes (a pod that becomes ready, its
/// EndpointSlice), and none of them is to wait.
const AT_ONCE: u32 = 4;
/// Sets the latency of a node's link, such as `20ms`.
pub(crate) const LINK_LATENCY: &str = "gatelab.dev/link-latency";
/// Sets the probability that a packet over a node's link is lost: `0` to `1`, or with a percent sign.
pub(crate) const LINK_LOSS: &str = "gatelab.dev/link-loss";

/// `down`: pods of the node are cut off from everything but their node, which is itself reached as before; what a CNI
/// plugin leaves behind that lost its routes.
const POD_NETWORK: &str = "gatelab.dev/pod-network";

/// Everything that network plans are made from.
pub(super) struct Cluster {
    pub(super) services: Vec<Arc<Service>>,
    pub(super) slices: Vec<Arc<EndpointSlice>>,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) namespaces: Vec<Arc<Namespace>>,
    pub(super) policies: Vec<Arc<NetworkPolicy>>,
    pub(super) nodes: Vec<Arc<Node>>,
}

/// Runs for ever.
pub(super) async fn run(store: Store, pods: Objects<Pod>, services: Objects<Service>, slices: Objects<EndpointSlice>, apply: ApplyPlan) {
    let policies: Objects<NetworkPolicy> = Objects::new(&store);
    let namespaces: Objects<Namespace> = Objects::new(&store);
    let nodes: Objects<Node> = Objects::new(&store);
    let followed = [services.resource(), slices.resource(), pods.resource(), namespaces.resource(), policies.resource(), nodes.resource()];
    let mut changes: SelectAll<_> = followed.into_iter().map(|resource| follow(store.clone(), resource.clone())).collect();
    let mut planner = Planner::default();
    let mut applied: Option<NetworkPlan> = None;
    let mut failed = false;
    let mut earliest = Instant::now();
    let mut in_a_row = 0;
    loop {
        // After a failure the same plan is tried again, as the kernel's state is not what it should be.
        let retry = async {
            if failed {
                tokio::time::sleep(Duration::from_secs(1)).await;
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            change = changes.next() => if change.is_none() { return },
            () = retry => {}
        }
        // A plan looks at everything: while changes stream in, at most half of the time goes into plans. kube-proxy bounds
        // them by its minimum sync period. After a quiet time there is no pause.
        in_a_row = if Instant::now() < earliest { in_a_row + 1 } else { 0 };
        if in_a_row >= AT_ONCE {
            tokio::time::sleep_until(earliest).await;
        }
        while let Some(Some(_)) = changes.next().now_or_never() {}
        let began = Instant::now();
        let plan = planner.plan(&Cluster {
            services: services.list(None),
            slices: slices.list(None),
            pods: pods.list(None),
            namespaces: namespaces.list(None),
            policies: policies.list(None),
            nodes: nodes.list(None),
        });
        if applied.as_ref() == Some(&plan) && !failed {
            earliest = Instant::now() + began.elapsed().min(LONGEST_PAUSE);
            continue;
        }
        match apply(plan.clone()).await {
            Ok(()) => {
                failed = false;
                applied = Some(plan);
            }
            Err(error) => {
                failed = true;
                tracing::error!(error, "the network plan could not be applied; trying again");
            }
        }
        earliest = Instant::now() + began.elapsed().min(LONGEST_PAUSE);
    }
}

/// Makes network plans. Ports of Services that stayed as they were, and whose EndpointSlices did, are taken from the plan
/// before.
#[derive(Default)]
pub(super) struct Planner {
    /// By address of the Service, which is held and so has it for itself.
    known: HashMap<usize, Planned>,
}

struct Planned {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    ports: Vec<Arc<ServicePort>>,
}

impl Planner {
    /// What the data plane is to do for this state of the cluster.
    pub(super) fn plan(&mut self, cluster: &Cluster) -> NetworkPlan {
        NetworkPlan { services: self.service_ports(cluster), isolations: isolations(cluster), links: links(&cluster.nodes) }
    }

    fn service_ports(&mut self, cluster: &Cluster) -> Vec<Arc<ServicePort>> {
        let mut by_service: HashMap<(&str, &str), Vec<Arc<EndpointSlice>>> = HashMap::new();
        for slice in &cluster.slices {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
            if let Some(service) = service
                && slice.address_type == "IPv4"
            {
                by_service.entry((slice.metadata.namespace.as_deref().unwrap_or_default(), service)).or_default().push(slice.clone());
            }
        }
        let mut known = std::mem::take(&mut self.known);
        let mut ports = Vec::new();
        for service in &cluster.services {
            let name = (service.metadata.namespace.as_deref().unwrap_or_default(), service.metadata.name.as_deref().unwrap_or_default());
            let slices = by_service.remove(&name).unwrap_or_default();
            let address = Arc::as_ptr(service).addr();
            let same = |planned: &Planned| {
                planned.slices.len() == slices.len() && planned.slices.iter().zip(&slices).all(|(one, other)| Arc::ptr_eq(one, other))
            };
            let planned = known.remove(&address).filter(same).unwrap_or_else(|| {
                let ports = ports_of(service, &slices).into_iter().map(Arc::new).collect();
                Planned { service: service.clone(), slices, ports }
            });
            ports.extend(planned.ports.iter().cloned());
            self.known.insert(Arc::as_ptr(&planned.service).addr(), planned);
        }
        ports
    }
}

fn ports_of(service: &Service, slices: &[Arc<EndpointSlice>]) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(cluster_ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let client_affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let configured = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
        configured.and_then(|seconds| u64::try_from(seconds).ok()).map_or(AFFINITY_TIMEOUT, Duration::from_secs)
    });
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let (protocol, number) = (protocol(port.protocol.as_deref())?, u16::try_from(port.port).ok()?);
        let port_name = port.name.as_deref().unwrap_or_default();
        Some(ServicePort {
            name: format!("{namespace}/{name}:{port_name}"),
            cluster_ip,
            protocol,
            port: number,
            node_port: port.node_port.and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0),
            endpoints: endpoints(slices, port_name, protocol),
            client_affinity,
        })
    });
    ports.collect()
}

/// Ready endpoints of a port; when there is none, those that still serve although they are going away (KEP-1669).
fn endpoints(slices: &[Arc<EndpointSlice>], port_name: &str, wanted: Protocol) -> Vec<(Ipv4Addr, u16)> {
    let (mut ready, mut serving_terminating) = (Vec::new(), Vec::new());
    for slice in slices {
        let port = slice
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref().unwrap_or_default() == port_name && protocol(p.protocol.as_deref()) == Some(wanted));
        let Some(number) = port.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { continue };
        for endpoint in &slice.endpoints {
            let addresses = endpoint.addresses.iter().filter_map(|a| a.parse::<Ipv4Addr>().ok()).map(|ip| (ip, number));
            if is_ready(endpoint) {
                ready.extend(addresses);
            } else if is_serving_terminating(endpoint) {
                serving_terminating.extend(addresses);
            }
        }
    }
    let mut chosen = if ready.is_empty() { serving_terminating } else { ready };
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// An unset condition counts as ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

fn is_serving_terminating(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    conditions.serving.unwrap_or(is_ready(endpoint)) && conditions.terminating == Some(true)
}

pub(super) fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

fn links(nodes: &[Arc<Node>]) -> Vec<Link> {
    let links = nodes.iter().filter_map(|node| {
        let (latency, loss) = link_of(node);
        let plain = latency.is_zero() && loss == 0.0;
        (!plain).then(|| Link { node: node.metadata.name.clone().unwrap_or_default(), latency, loss })
    });
    links.collect()
}

/// Latency of a node's link, and the probability that a packet over it is lost, by its annotations.
pub(crate) fn link_of(node: &Node) -> (Duration, f64) {
    let annotation = |name: &str| node.metadata.annotations.as_ref().and_then(|all| all.get(name));
    let latency = annotation(LINK_LATENCY).and_then(|text| parse_latency(text)).unwrap_or_default();
    (latency, annotation(LINK_LOSS).and_then(|text| parse_probability(text)).unwrap_or_default())
}

/// Whether its pods are reached from other nodes, as far as the annotation says.
pub(crate) fn has_pod_network(node: &Node) -> bool {
    node.metadata.annotations.as_ref().and_then(|all| all.get(POD_NETWORK)).is_none_or(|state| state != "down")
}

/// `20ms`, `1.5s`, `500us`.
fn parse_latency(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let seconds_per_unit = match unit.trim() {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds_per_unit).ok()
}

fn parse_probability(text: &str) -> Option<f64> {
    let text = text.trim();
    let value = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    value.is_finite().then(|| value.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Arc<Service> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "shop", "namespace": "shop"}, "spec": spec})).expect("a Service"))
    }

    fn slice(port: u16, endpoints: &[(&str, bool, bool, bool)]) -> Arc<EndpointSlice> {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(ip, ready, serving, terminating)| {
                json!({"addresses": [ip], "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
            })
            .collect();
        let metadata = json!({"name": format!("shop-{port}"), "namespace": "shop", "labels": {"kubernetes.io/service-name": "shop"}});
        let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}]});
        Arc::new(serde_json::from_value(slice).expect("an EndpointSlice"))
    }

    fn plan(cluster: &Cluster) -> NetworkPlan {
        Planner::default().plan(cluster)
    }

    fn cluster(services: Vec<Arc<Service>>, slices: Vec<Arc<EndpointSlice>>) -> Cluster {
        Cluster { services, slices, pods: vec![], namespaces: vec![], policies: vec![], nodes: vec![] }
    }

    fn http(extra: Value) -> Arc<Service> {
        let mut spec = json!({"clusterIP": "10.96.1.1", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
        for (k, v) in extra.as_object().into_iter().flatten() {
            spec[k] = v.clone();
        }
        service(spec)
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, 0, last)
    }

    #[test]
    fn ready_endpoints_of_all_slices_with_their_own_port() {
        let slices = vec![
            slice(8080, &[("10.244.0.2", true, true, false), ("10.244.0.3", false, false, false)]),
            slice(9090, &[("10.244.0.4", true, true, false), ("10.244.0.5", false, true, true)]),
        ];
        let plan = plan(&cluster(vec![http(json!({}))], slices));
        assert_eq!(
            plan.services.iter().map(|port| (**port).clone()).collect::<Vec<_>>(),
            [ServicePort {
                name: "shop/shop:http".to_owned(),
                cluster_ip: Ipv4Addr::new(10, 96, 1, 1),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: Some(30080),
                endpoints: vec![(ip(2), 8080), (ip(4), 9090)],
                client_affinity: None,
            }]
        );
    }

    #[test]
    fn terminating_endpoints_that_serve_are_the_last_resort() {
        let leaving = slice(8080, &[("10.244.0.2", false, true, true), ("10.244.0.3", false, false, true)]);
        assert_eq!(plan(&cluster(vec![http(json!({}))], vec![leaving])).services[0].endpoints, [(ip(2), 8080)]);
    }

    #[test]
    fn a_service_without_endpoints_is_still_in_the_plan_so_that_it_is_rejected() {
        assert_eq!(plan(&cluster(vec![http(json!({}))], vec![])).services[0].endpoints, []);
        assert_eq!(plan(&cluster(vec![http(json!({"clusterIP": "None"}))], vec![])).services, [], "headless: no address to reject at");
    }

    #[test]
    fn only_what_changed_is_planned_anew() {
        let mut planner = Planner::default();
        let other = Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "other", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.1.2", "ports": [{"port": 80}]}}))
            .expect("a Service"),
        );
        let mut state = cluster(vec![http(json!({})), other], vec![slice(8080, &[("10.244.0.2", true, true, false)])]);
        let before = planner.plan(&state).services;
        let again = planner.plan(&state).services;
        assert!(before.iter().zip(&again).all(|(one, other)| Arc::ptr_eq(one, other)));
        state.slices = vec![slice(8080, &[("10.244.0.3", true, true, false)])];
        let after = planner.plan(&state).services;
        assert_eq!(after[0].endpoints, [(ip(3), 8080)]);
        assert!(Arc::ptr_eq(&after[1], &before[1]));
        state.services[0] = http(json!({"clusterIP": "10.96.1.9"}));
        assert_eq!(planner.plan(&state).services[0].cluster_ip, Ipv4Addr::new(10, 96, 1, 9));
        state.services.clear();
        assert_eq!((planner.plan(&state).services, planner.known.len()), (vec![], 0), "nothing is kept of what is gone");
    }

    #[test]
    fn client_affinity_has_kubernetes_default_timeout() {
        let plan = plan(&cluster(vec![http(json!({"sessionAffinity": "ClientIP"}))], vec![]));
        assert_eq!(plan.services[0].client_affinity, Some(Duration::from_secs(10_800)));
    }

    #[test]
    fn link_annotations_are_read_in_several_units() {
        let node = |annotations: Value| {
            Arc::new(serde_json::from_value::<Node>(json!({"metadata": {"name": "n", "annotations": annotations}})).expect("a Node"))
        };
        let of = |annotations: Value| links(&[node(annotations)]).first().map(|link| (link.latency, link.loss));
        assert_eq!(of(json!({LINK_LATENCY: "20ms"})), Some((Duration::from_millis(20), 0.0)));
        assert_eq!(of(json!({LINK_LATENCY: "1.5s", LINK_LOSS: "10%"})), Some((Duration::from_millis(1500), 0.1)));
        assert_eq!(of(json!({LINK_LOSS: "1"})), Some((Duration::ZERO, 1.0)));
        assert_eq!(of(json!({LINK_LATENCY: "soon"})), None);
        assert_eq!(of(json!({})), None);
    }

    /// Takes as long for each plan as the kernel would; returns when plans were applied, and how many Services they had.
    fn controller(store: &Store) -> Arc<std::sync::Mutex<Vec<(Instant, usize)>>> {
        let applied: Arc<std::sync::Mutex<Vec<(Instant, usize)>>> = Arc::default();
        let seen = applied.clone();
        let apply: ApplyPlan = Arc::new(move |plan| {
            let seen = seen.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                seen.lock().expect("not poisoned").push((Instant::now(), plan.services.len()));
                Ok(())
            }
            .boxed()
        });
        tokio::spawn(run(store.clone(), Objects::new(store), Objects::new(store), Objects::new(store), apply));
        applied
    }

    fn add_service(store: &Store, number: u32) {
        let service = json!({"metadata": {"name": format!("s{number}")}, "spec": {"ports": [{"port": 80}]}});
        let services: Objects<Service> = Objects::new(store);
        services.create("shop", &serde_json::from_value(service).expect("a Service")).expect("created");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_changes_takes_half_of_the_time_and_ends_with_all_of_them() {
        let store = Store::default();
        let applied = controller(&store);
        for number in 0..400 {
            add_service(&store, number);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let applied = applied.lock().expect("not poisoned");
        // 40 would fit into the four seconds.
        assert!((15..=26).contains(&applied.len()), "{} plans", applied.len());
        assert_eq!(applied.last().map(|(_, services)| *services), Some(400));
    }

    #[tokio::test(start_paused = true)]
    async fn the_few_writes_of_one_change_are_planned_without_a_pause() {
        let store = Store::default();
        let applied = controller(&store);
        for round in 0..3 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let began = Instant::now();
            for write in 0..3 {
                add_service(&store, round * 3 + write);
                tokio::time::sleep(Duration::from_millis(101)).await;
            }
            let last = applied.lock().expect("not poisoned").last().copied();
            assert_eq!(last.map(|(_, services)| services), Some(round as usize * 3 + 3));
            assert!(last.is_some_and(|(at, _)| at - began < Duration::from_millis(310)), "each at once, no pause between them");
        }
    }
}
