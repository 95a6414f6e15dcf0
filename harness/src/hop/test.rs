//! Trying each leg from where it begins, by exec into the client's, the gateway's and the application's pods.

use std::time::Duration;

use futures::future::join_all;
use gateways::GatewayKind;
use serde_json::Value;

use super::route::{self, Endpoint, Route, Speech};
use crate::kubernetes::ExecTarget;
use crate::kubernetes::rollout::terminating;
use crate::probe::{Connection, DnsProbe, HttpProbe, Micros, Outcome, Probe, ProbeKind, Protocol, Record, Schedule, TcpProbe, TlsClient};
use crate::run::mirror::Snapshot;
use crate::run::probing::{self, Senders};
use crate::run::sync;
use crate::scenario::expect::Hop;
use crate::signature::HopRecord;

/// How long a connection may take to stand: SYNs that are dropped are never answered, and one retransmission is waited for.
const CONNECT_WITHIN: Duration = Duration::from_millis(1500);
/// How long a name may take: a healthy cluster answers in milliseconds, and a lost datagram is asked for again only after 5 s.
const LOOKED_UP_WITHIN: Duration = Duration::from_millis(1500);
/// Endpoints that are tried; more would say nothing new.
const ENDPOINTS_TRIED: usize = 4;

/// One request, and what is known of how the gateway forwards it.
pub struct HopTest<'a> {
    pub senders: &'a Senders,
    pub snapshot: &'a Snapshot,
    /// `host:port` of the gateway as the client reaches it.
    pub gateway: &'a str,
    pub namespace: &'a str,
    /// Host header and request target.
    pub kind: GatewayKind,
    pub host: &'a str,
    pub target: &'a str,
    /// What the gateway speaks to applications unless an Ingress says otherwise.
    pub speech: Speech,
    /// How long the gateway would wait for an answer: an application that takes longer has failed it.
    pub answer_within: Duration,
}

/// The first leg that does not do its part; [`Hop::None`] when all do.
pub fn first_failing(hops: &[HopRecord]) -> Hop {
    hops.iter().filter(|record| !record.worked).map(|record| record.hop).min().unwrap_or(Hop::None)
}

/// A trial of one address from one pod.
struct Trial {
    worked: bool,
    seen: String,
}

impl HopTest<'_> {
    /// Tries every leg; what cannot be tried has failed, and says why it could not be tried.
    pub async fn run(&self) -> Vec<HopRecord> {
        let route = route::find(self.snapshot, self.kind, self.host, self.target, self.speech);
        let gateway_pod = sync::gateway_pods(self.snapshot).into_iter().next();
        let client = probing::client();
        match route {
            Err(broken) => {
                let outer = self.client_to_gateway(&client).await;
                vec![outer, record(Hop::GatewayToService, "kubectl get ingress -A".into(), false, broken)]
            }
            Ok(route) => {
                let (outer, (middle, inside)) =
                    tokio::join!(self.client_to_gateway(&client), self.behind_gateway(&route, gateway_pod.as_ref()));
                std::iter::once(outer).chain(middle).chain(inside).collect()
            }
        }
    }

    async fn client_to_gateway(&self, client: &ExecTarget) -> HopRecord {
        let trial = self.attempt(client, connecting(self.gateway.to_owned())).await;
        record(Hop::ClientToGateway, format!("nc -vz {} in {client}", spaced(self.gateway)), trial.worked, trial.seen)
    }

    /// A Service has done its part when it has endpoints and its address is no worse than theirs. Second: inside of the pods.
    async fn behind_gateway(&self, route: &Route, gateway_pod: Option<&ExecTarget>) -> (Vec<HopRecord>, Vec<HopRecord>) {
        let Some(pod) = gateway_pod else {
            let seen = "could not be tried: no gateway pod is ready".to_owned();
            let tried = format!("nc -vz Service {}/{}", route.namespace, route.service);
            return (vec![record(Hop::GatewayToService, tried, false, seen)], self.inside(route).await);
        };
        let service_address = route.cluster_ip.as_ref().zip(route.port).map(|(ip, port)| format!("{ip}:{port}"));
        let endpoints: Vec<&Endpoint> = route.ready.iter().take(ENDPOINTS_TRIED).collect();
        let to_service = match (&service_address, &route.external_name) {
            (_, Some(name)) => Some(looking_up(name)),
            (Some(address), None) => Some(connecting(address.clone())),
            (None, None) => None,
        };
        let with_service = to_service.is_some();
        let probes = to_service.into_iter().chain(endpoints.iter().map(|endpoint| connecting(endpoint.address()))).collect();
        // One after the other in the application's pods: the process that has looked inside of one tries its neighbours.
        let in_application = async {
            let inside = self.inside(route).await;
            (inside, self.neighbours_trials(&endpoints).await)
        };
        let (trials, (inside, from_neighbour)) = tokio::join!(self.try_all(pod, probes), in_application);
        let mut trials = trials.into_iter();
        let to_service = if with_service { trials.next() } else { None };
        let to_pods: Vec<Trial> = trials.collect();

        let all_pods_fail = !to_pods.is_empty() && to_pods.iter().all(|trial| !trial.worked);
        let (reached, seen) = match (&to_service, &route.broken) {
            (Some(trial), None) if route.external_name.is_some() => (trial.worked, trial.seen.clone()),
            (Some(trial), None) => (trial.worked || all_pods_fail, trial.seen.clone()),
            (Some(trial), Some(broken)) => (false, format!("{}; {broken}", trial.seen)),
            (None, Some(broken)) => (false, broken.clone()),
            (None, None) => (true, "headless: clients connect to pods".into()),
        };
        let seen = if reached && all_pods_fail && route.external_name.is_none() { format!("{seen}, as at its endpoints") } else { seen };
        let tried = match (&service_address, &route.external_name) {
            (_, Some(name)) => format!("nslookup {name} in {pod}"),
            (Some(address), None) => format!("nc -vz {} (Service {}/{}) in {pod}", spaced(address), route.namespace, route.service),
            (None, None) => format!("kubectl -n {} get service {}", route.namespace, route.service),
        };
        let mut records = vec![record(Hop::GatewayToService, tried, reached, seen)];
        for (endpoint, trial) in endpoints.iter().zip(to_pods) {
            let seen = match &from_neighbour {
                Some((neighbour, trials)) => {
                    let theirs = trials.iter().find(|(address, _)| *address == endpoint.address()).map(|(_, trial)| trial.seen.as_str());
                    format!("{}; from {neighbour}: {}", trial.seen, theirs.unwrap_or("not tried"))
                }
                None => trial.seen.clone(),
            };
            records.push(record(Hop::ServiceToPod, format!("nc -vz {} in {pod}", spaced(&endpoint.address())), trial.worked, seen));
        }
        (records, inside)
    }

    /// The same endpoints from a pod of the application's own namespace: tells a policy from a dead port.
    async fn neighbours_trials(&self, endpoints: &[&Endpoint]) -> Option<(String, Vec<(String, Trial)>)> {
        let pods: Vec<&Value> = app_pods(self.snapshot, self.namespace).collect();
        let of_endpoint = |pod: &Value| endpoints.iter().any(|endpoint| endpoint.pod.as_deref() == pod["metadata"]["name"].as_str());
        let pod = pods.iter().find(|pod| !of_endpoint(pod)).or(pods.first())?;
        let from = exec_target(pod)?;
        let trials = self.try_all(&from, endpoints.iter().map(|endpoint| connecting(endpoint.address())).collect()).await;
        Some((from.to_string(), endpoints.iter().map(|endpoint| endpoint.address()).zip(trials).collect()))
    }

    /// Asks the application where it listens, past everything else.
    async fn inside(&self, route: &Route) -> Vec<HopRecord> {
        let pods: Vec<&Value> = if route.ready.is_empty() {
            selected_pods(self.snapshot, route)
        } else {
            let ready = route.ready.iter().take(ENDPOINTS_TRIED);
            ready.filter_map(|endpoint| self.snapshot.get("Pod", &route.namespace, endpoint.pod.as_deref()?)).collect()
        };
        join_all(pods.into_iter().map(|pod| self.inside_pod(pod, route))).await
    }

    async fn inside_pod(&self, pod: &Value, route: &Route) -> HopRecord {
        let name = pod["metadata"]["name"].as_str().unwrap_or("?");
        let Some(target) = exec_target(pod) else {
            return record(Hop::InsidePod, format!("kubectl exec {name}"), false, "could not be tried: no container runs".into());
        };
        let Some(port) = listening_port(pod, route) else {
            return record(Hop::InsidePod, format!("curl in {target}"), false, "could not be tried: the pod declares no port".into());
        };
        let scheme = if route.speech.tls { "https" } else { "http" };
        let option = if route.speech.http2 { "--http2-prior-knowledge " } else { "" };
        let tried = format!("curl -k {option}{scheme}://127.0.0.1:{port}{} in {target}", self.target);
        let kind = ProbeKind::Http(HttpProbe {
            address: format!("127.0.0.1:{port}"),
            method: "GET".into(),
            target: self.target.into(),
            host: self.host.into(),
            headers: Vec::new(),
            body: String::new(),
            connection: Connection::New,
            tls: route.speech.tls.then(|| TlsClient { server_name: self.host.into(), trusted: None }),
            protocol: if route.speech.http2 { Protocol::Http2 } else { Protocol::Http1 },
            websocket: None,
            body_kept: 0,
        });
        let trial = self.attempt(&target, once(kind, self.answer_within)).await;
        record(Hop::InsidePod, tried, trial.worked, trial.seen)
    }

    async fn attempt(&self, from: &ExecTarget, probe: Probe) -> Trial {
        let mut trials = self.try_all(from, vec![probe]).await;
        trials.remove(0)
    }

    /// All at once from one pod; a trial for each probe, in their order.
    async fn try_all(&self, from: &ExecTarget, mut probes: Vec<Probe>) -> Vec<Trial> {
        for (number, probe) in probes.iter_mut().enumerate() {
            probe.name = number.to_string();
        }
        let count = probes.len();
        let records = if probes.is_empty() { Ok(Vec::new()) } else { self.senders.quietly(from, probes).await };
        let of = |number: usize| match &records {
            Err(error) => Trial::not_made(error),
            Ok(records) => records
                .iter()
                .find(|record| record.probe == number.to_string())
                .map_or_else(|| Trial::not_made(&"the probe reported nothing"), Trial::of),
        };
        (0..count).map(of).collect()
    }
}

impl Trial {
    fn of(record: &Record) -> Self {
        Trial { worked: worked(record), seen: describe(record) }
    }

    fn not_made(why: &dyn std::fmt::Display) -> Self {
        Trial { worked: false, seen: format!("could not be tried: {why}") }
    }
}

/// Asks the pod's own resolvers, once.
fn looking_up(name: &str) -> Probe {
    once(ProbeKind::Dns(DnsProbe { name: name.into() }), LOOKED_UP_WITHIN)
}

fn connecting(address: String) -> Probe {
    once(ProbeKind::Tcp(TcpProbe { address }), CONNECT_WITHIN)
}

fn once(kind: ProbeKind, deadline: Duration) -> Probe {
    Probe { name: String::new(), kind, schedule: Schedule::once(), deadline: Micros::from(deadline) }
}

impl Endpoint {
    fn address(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }
}

/// An answer in which an application complains about the request's form (400: plain HTTP at a TLS port) is none.
fn worked(record: &Record) -> bool {
    record.outcome == Outcome::Answered && record.status.is_none_or(|status| status < 500 && status != 400)
}

fn describe(record: &Record) -> String {
    let milliseconds = record.timings.total.0 as f64 / 1000.0;
    let what = match (record.status, record.outcome) {
        (Some(status), Outcome::Answered) => status.to_string(),
        (None, Outcome::Answered) => "connected".into(),
        (_, outcome) => record.errno.clone().unwrap_or_else(|| format!("{} ({:?})", outcome.name(), record.phase).to_lowercase()),
    };
    format!("{what} after {milliseconds:.1} ms")
}

fn record(hop: Hop, tried: String, worked: bool, seen: String) -> HopRecord {
    HopRecord { hop, tried, worked, seen }
}

fn spaced(address: &str) -> String {
    address.replacen(':', " ", 1)
}

fn app_pods<'a>(snapshot: &'a Snapshot, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
    snapshot.of_kind("Pod", Some(namespace)).filter(|pod| !terminating(pod) && exec_target(pod).is_some())
}

fn selected_pods<'a>(snapshot: &'a Snapshot, route: &Route) -> Vec<&'a Value> {
    let Some(selector) =
        snapshot.get("Service", &route.namespace, &route.service).and_then(|service| service.pointer("/spec/selector")?.as_object())
    else {
        return Vec::new();
    };
    let pods = snapshot.of_kind("Pod", None).filter(|pod| pod["metadata"]["namespace"] == *route.namespace && !terminating(pod));
    pods.filter(|pod| selector.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value)).take(ENDPOINTS_TRIED).collect()
}

/// A container of the pod that holds the lab's executable and runs.
pub fn exec_target(pod: &Value) -> Option<ExecTarget> {
    let running = |name: &str| {
        let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array)?;
        statuses.iter().find(|status| status["name"] == name && !status["state"]["running"].is_null())
    };
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
    let lab = containers.iter().find(|container| {
        let image = container["image"].as_str().unwrap_or_default();
        image.starts_with("gatelab/") && container["name"].as_str().and_then(running).is_some()
    })?;
    Some(ExecTarget {
        namespace: pod["metadata"]["namespace"].as_str()?.to_owned(),
        pod: pod["metadata"]["name"].as_str()?.to_owned(),
        container: lab["name"].as_str().map(str::to_owned),
    })
}

/// The endpoint's port when a container declares it, else the first declared one: `containerPort` is documentation only, but
/// the lab's apps document what is true.
fn listening_port(pod: &Value, route: &Route) -> Option<u16> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
    let declared: Vec<u16> = containers
        .iter()
        .filter_map(|container| container["ports"].as_array())
        .flatten()
        .filter_map(|port| port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok()))
        .collect();
    let wanted =
        route.ready.iter().find(|endpoint| endpoint.pod.as_deref() == pod["metadata"]["name"].as_str()).map(|endpoint| endpoint.port);
    wanted.filter(|port| declared.contains(port)).or(declared.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_failing_leg_is_named() {
        let at = |hop, worked| record(hop, String::new(), worked, String::new());
        let hops = [at(Hop::InsidePod, false), at(Hop::ClientToGateway, true), at(Hop::ServiceToPod, false), at(Hop::ServiceToPod, true)];
        assert_eq!(first_failing(&hops), Hop::ServiceToPod);
        assert_eq!(first_failing(&hops[1..2]), Hop::None);
    }
}
