//! NetworkPolicies resolved to addresses and ports: who is isolated in which direction, and what is let through
//! nevertheless. Policies only ever add permissions; a pod no policy selects is open.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::network::{Cluster, has_pod_network, protocol};
use super::pods::is_finished;
use super::selectors::{self, Labels};
use crate::network::{Allow, Isolation, PodIsolation, PortRange, Protocol};

type Peers = Vec<(Ipv4Net, Vec<Ipv4Net>)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// Isolated pods only, sorted by address.
pub(super) fn isolations(cluster: &Cluster) -> Vec<PodIsolation> {
    let pods: Vec<(&Pod, Ipv4Addr)> = cluster.pods.iter().filter_map(|pod| Some((&**pod, address(pod)?))).collect();
    let namespaces: BTreeMap<&str, Option<&Labels>> =
        cluster.namespaces.iter().map(|n| (n.metadata.name.as_deref().unwrap_or_default(), n.metadata.labels.as_ref())).collect();
    let cut_off = without_pod_network(cluster);
    let world = World { pods: &pods, namespaces: &namespaces };
    let mut isolated: Vec<PodIsolation> = pods
        .iter()
        .filter_map(|(pod, ip)| {
            let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
            if cut_off.contains(on) {
                return Some(PodIsolation { pod: *ip, ingress: Isolation::Severed, egress: Isolation::Severed });
            }
            let (ingress, egress) =
                (world.isolation(&cluster.policies, pod, Direction::Ingress), world.isolation(&cluster.policies, pod, Direction::Egress));
            (ingress != Isolation::Open || egress != Isolation::Open).then_some(PodIsolation { pod: *ip, ingress, egress })
        })
        .collect();
    isolated.sort_by_key(|isolation| isolation.pod);
    isolated
}

fn without_pod_network(cluster: &Cluster) -> BTreeSet<&str> {
    cluster.nodes.iter().filter(|node| !has_pod_network(node)).filter_map(|node| node.metadata.name.as_deref()).collect()
}

/// Pods on the host's network have no policies, those that ended no address of their own any more.
fn address(pod: &Pod) -> Option<Ipv4Addr> {
    let on_host = pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
    let ip = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    (!on_host && !is_finished(pod)).then_some(ip)
}

struct World<'a> {
    pods: &'a [(&'a Pod, Ipv4Addr)],
    namespaces: &'a BTreeMap<&'a str, Option<&'a Labels>>,
}

impl World<'_> {
    fn isolation(&self, policies: &[std::sync::Arc<NetworkPolicy>], pod: &Pod, direction: Direction) -> Isolation {
        let mut isolated = false;
        let mut allows: Vec<Allow> = Vec::new();
        for policy in policies {
            if !selects(policy, pod) || !governs(policy, direction) {
                continue;
            }
            isolated = true;
            for allow in self.allows(policy, pod, direction) {
                if !allows.contains(&allow) {
                    allows.push(allow);
                }
            }
        }
        if isolated { Isolation::Only(allows) } else { Isolation::Open }
    }

    fn allows(&self, policy: &NetworkPolicy, pod: &Pod, direction: Direction) -> Vec<Allow> {
        let Some(spec) = &policy.spec else { return Vec::new() };
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        match direction {
            Direction::Ingress => spec
                .ingress
                .iter()
                .flatten()
                .filter_map(|rule| {
                    // A named port is that of the pod which the policy protects.
                    let ports = ports(rule.ports.as_deref(), Some(pod))?;
                    Some(Allow { peers: self.peers(rule.from.as_deref(), namespace).map(networks), ports })
                })
                .collect(),
            Direction::Egress => spec
                .egress
                .iter()
                .flatten()
                .flat_map(|rule| {
                    let peers = self.peers(rule.to.as_deref(), namespace);
                    let named = rule.ports.iter().flatten().any(|port| matches!(port.port, Some(IntOrString::String(_))));
                    if named {
                        self.egress_with_named_ports(rule.ports.as_deref(), peers)
                    } else {
                        ports(rule.ports.as_deref(), None).map(|ports| Allow { peers: peers.map(networks), ports }).into_iter().collect()
                    }
                })
                .collect(),
        }
    }

    /// A named port of an egress rule is that of each pod it leads to.
    fn egress_with_named_ports(&self, wanted: Option<&[NetworkPolicyPort]>, peers: Option<Vec<Peer<'_>>>) -> Vec<Allow> {
        let peers = peers.unwrap_or_else(|| self.pods.iter().map(|(pod, ip)| Peer::Pod(pod, *ip)).collect());
        let allow = |peer: Peer<'_>| {
            let pod = match &peer {
                Peer::Pod(pod, _) => Some(*pod),
                Peer::Block(..) => None,
            };
            Some(Allow { ports: ports(wanted, pod)?, peers: Some(networks(vec![peer])) })
        };
        peers.into_iter().filter_map(allow).collect()
    }

    /// `None`: the rule names no peers and so means all.
    fn peers(&self, peers: Option<&[NetworkPolicyPeer]>, namespace: &str) -> Option<Vec<Peer<'_>>> {
        let peers = peers.filter(|peers| !peers.is_empty())?;
        Some(peers.iter().flat_map(|peer| self.resolve(peer, namespace)).collect())
    }

    fn resolve(&self, peer: &NetworkPolicyPeer, namespace: &str) -> Vec<Peer<'_>> {
        if let Some(block) = &peer.ip_block {
            let except = block.except.iter().flatten().filter_map(|net| net.parse().ok()).collect();
            return block.cidr.parse::<Ipv4Net>().map(|net| vec![Peer::Block(net.trunc(), except)]).unwrap_or_default();
        }
        let in_namespace = |pod: &Pod| {
            let own = pod.metadata.namespace.as_deref().unwrap_or_default();
            match &peer.namespace_selector {
                None => own == namespace,
                Some(selector) => self.namespaces.get(own).is_some_and(|labels| selectors::matches(selector, *labels)),
            }
        };
        let selected = |pod: &Pod| peer.pod_selector.as_ref().is_none_or(|s| selectors::matches(s, pod.metadata.labels.as_ref()));
        let nothing_said = peer.namespace_selector.is_none() && peer.pod_selector.is_none();
        self.pods
            .iter()
            .filter(|(pod, _)| !nothing_said && in_namespace(pod) && selected(pod))
            .map(|(pod, ip)| Peer::Pod(pod, *ip))
            .collect()
    }
}

enum Peer<'a> {
    Pod(&'a Pod, Ipv4Addr),
    Block(Ipv4Net, Vec<Ipv4Net>),
}

fn networks(peers: Vec<Peer<'_>>) -> Peers {
    let mut networks: Peers = peers
        .into_iter()
        .map(|peer| match peer {
            Peer::Pod(_, ip) => (Ipv4Net::from(ip), Vec::new()),
            Peer::Block(net, except) => (net, except),
        })
        .collect();
    networks.sort();
    networks.dedup();
    networks
}

/// In its own namespace; an empty selector means every pod there.
fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let selector = policy.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
    policy.metadata.namespace == pod.metadata.namespace && selector.is_none_or(|s| selectors::matches(s, pod.metadata.labels.as_ref()))
}

/// Without `policyTypes` a policy is about ingress, and about egress when it has egress rules.
fn governs(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return false };
    match spec.policy_types.as_ref().filter(|types| !types.is_empty()) {
        Some(types) => types.iter().any(|t| t == if direction == Direction::Ingress { "Ingress" } else { "Egress" }),
        None => direction == Direction::Ingress || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

/// `Some(None)`: every port. `None`: ports are named but the pod has none of them, so the rule lets nothing through.
#[expect(clippy::option_option, reason = "every port, some ports and no port are three answers")]
fn ports(wanted: Option<&[NetworkPolicyPort]>, pod: Option<&Pod>) -> Option<Option<Vec<PortRange>>> {
    let Some(wanted) = wanted.filter(|ports| !ports.is_empty()) else { return Some(None) };
    let ranges: Vec<PortRange> = wanted.iter().filter_map(|port| range(port, pod)).collect();
    (!ranges.is_empty()).then_some(Some(ranges))
}

fn range(port: &NetworkPolicyPort, pod: Option<&Pod>) -> Option<PortRange> {
    let wanted = protocol(port.protocol.as_deref())?;
    let (first, last) = match &port.port {
        None => (0, u16::MAX),
        Some(IntOrString::Int(first)) => {
            let first = u16::try_from(*first).ok()?;
            let last = port.end_port.and_then(|end| u16::try_from(end).ok()).filter(|end| *end >= first);
            (first, last.unwrap_or(first))
        }
        Some(IntOrString::String(name)) => {
            let number = container_port(pod?, name, wanted)?;
            (number, number)
        }
    };
    Some(PortRange { protocol: wanted, first, last })
}

fn container_port(pod: &Pod, name: &str, wanted: Protocol) -> Option<u16> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let port = containers
        .flat_map(|c| c.ports.iter().flatten())
        .find(|p| p.name.as_deref() == Some(name) && protocol(p.protocol.as_deref()) == Some(wanted))?;
    u16::try_from(port.container_port).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Namespace;
    use serde_json::{Value, json};

    use super::*;

    fn pod(namespace: &str, app: &str, last: u8) -> Arc<Pod> {
        let ports = json!([{"name": "http", "containerPort": 8080 + i32::from(last)}]);
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("{app}-{last}"), "namespace": namespace, "labels": {"app": app}},
                "spec": {"containers": [{"name": "app", "ports": ports}]},
                "status": {"phase": "Running", "podIP": format!("10.244.0.{last}")},
            }))
            .expect("a Pod"),
        )
    }

    fn namespace(name: &str) -> Arc<Namespace> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": {"name": name}}})).expect("a Namespace"))
    }

    /// shop/web at .1, shop/db at .2, gateway/nginx at .3, clients/web at .4.
    fn with(policies: &[Value]) -> Vec<PodIsolation> {
        let policy = |spec: &Value| -> Arc<NetworkPolicy> {
            Arc::new(serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec})).expect("a policy"))
        };
        isolations(&Cluster {
            services: vec![],
            slices: vec![],
            pods: vec![pod("shop", "web", 1), pod("shop", "db", 2), pod("gateway", "nginx", 3), pod("clients", "web", 4)],
            namespaces: vec![namespace("shop"), namespace("gateway"), namespace("clients")],
            policies: policies.iter().map(policy).collect(),
            nodes: vec![],
        })
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, 0, last)
    }

    fn from(isolation: &Isolation) -> Vec<Ipv4Addr> {
        let Isolation::Only(allows) = isolation else { panic!("open") };
        allows.iter().flat_map(|a| a.peers.iter().flatten()).map(|(net, _)| net.addr()).collect()
    }

    fn ports_of(isolation: &Isolation) -> Vec<Option<Vec<(u16, u16)>>> {
        let Isolation::Only(allows) = isolation else { panic!("open") };
        allows.iter().map(|a| a.ports.as_ref().map(|ranges| ranges.iter().map(|r| (r.first, r.last)).collect())).collect()
    }

    #[test]
    fn an_empty_selector_isolates_every_pod_of_the_namespace_and_no_other() {
        let isolated = with(&[json!({"podSelector": {}})]);
        let expected: Vec<_> =
            [1, 2].map(|last| PodIsolation { pod: ip(last), ingress: Isolation::Only(vec![]), egress: Isolation::Open }).into();
        assert_eq!(isolated, expected, "policyTypes defaults to Ingress only");
    }

    #[test]
    fn policy_types_default_by_the_rules_present_and_can_deny_egress() {
        let open = with(&[json!({"podSelector": {}, "egress": [{}]})]);
        assert_eq!(open[0].ingress, Isolation::Only(vec![]), "ingress is restricted although only egress rules are given");
        assert_eq!(open[0].egress, Isolation::Only(vec![Allow { peers: None, ports: None }]));
        let denied = with(&[json!({"podSelector": {}, "policyTypes": ["Egress"]})]);
        assert_eq!((&denied[0].ingress, &denied[0].egress), (&Isolation::Open, &Isolation::Only(vec![])));
    }

    #[test]
    fn selectors_in_one_peer_are_and_in_two_peers_or() {
        let gateway = json!({"matchLabels": {"name": "clients"}});
        let web = json!({"matchLabels": {"app": "web"}});
        let both = with(&[json!({"podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"namespaceSelector": gateway, "podSelector": web}]}]})]);
        assert_eq!(from(&both[0].ingress), [ip(4)]);
        let either = with(&[json!({"podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"namespaceSelector": gateway}, {"podSelector": web}]}]})]);
        assert_eq!(from(&either[0].ingress), [ip(1), ip(4)], "a lone podSelector means the policy's own namespace");
    }

    #[test]
    fn an_empty_namespace_selector_means_all_namespaces() {
        let all = with(&[json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [{"namespaceSelector": {}}]}]})]);
        assert_eq!(from(&all[0].ingress), [ip(1), ip(2), ip(3), ip(4)]);
        let none = with(&[json!({"podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"name": "nowhere"}}}]}]})]);
        assert_eq!(none[0].ingress, Isolation::Only(vec![Allow { peers: Some(vec![]), ports: None }]), "no peer is not any peer");
    }

    #[test]
    fn ip_blocks_keep_their_exceptions() {
        let isolated = with(&[json!({"podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.244.0.0/24"]}}]}]})]);
        let net = |text: &str| text.parse::<Ipv4Net>().expect("a network");
        assert_eq!(
            isolated[0].ingress,
            Isolation::Only(vec![Allow { peers: Some(vec![(net("10.0.0.0/8"), vec![net("10.244.0.0/24")])]), ports: None }])
        );
    }

    #[test]
    fn ports_by_number_range_name_and_protocol() {
        let rule = |ports: Value| json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"ports": ports}]});
        let of = |ports: Value| ports_of(&with(&[rule(ports)])[0].ingress);
        assert_eq!(of(json!([{"port": 80}])), [Some(vec![(80, 80)])]);
        assert_eq!(of(json!([{"port": 80, "endPort": 90}])), [Some(vec![(80, 90)])]);
        assert_eq!(of(json!([{"protocol": "UDP"}])), [Some(vec![(0, u16::MAX)])]);
        assert_eq!(of(json!([{"port": "http"}])), [Some(vec![(8082, 8082)])], "the protected pod's own port of that name");
        assert_eq!(of(json!([{"port": "no-such-name"}])), [], "a name that the pod does not have lets nothing through");
        assert_eq!(of(json!([])), [None]);
    }

    #[test]
    fn named_egress_ports_are_those_of_the_peer() {
        let isolated = with(&[json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"name": "gateway"}}}, {"podSelector": {"matchLabels": {"app": "web"}}}],
                "ports": [{"port": "http"}]}]})]);
        assert_eq!(from(&isolated[0].egress), [ip(3), ip(1)]);
        assert_eq!(ports_of(&isolated[0].egress), [Some(vec![(8083, 8083)]), Some(vec![(8081, 8081)])]);
    }

    #[test]
    fn policies_add_up() {
        let allow = |app: &str| {
            json!({"podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]})
        };
        let isolated = with(&[allow("web"), allow("db")]);
        assert_eq!(from(&isolated[0].ingress), [ip(1), ip(2)]);
    }
}
