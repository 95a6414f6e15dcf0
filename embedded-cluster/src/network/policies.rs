//! NetworkPolicies as drops in the forward hook of the node a pod is on: egress where packets leave the pod, ingress
//! where they arrive at it.
//!
//! A pod's own node is never filtered: its packets do not pass the forward hook. Dropped packets leave no trace, so that
//! clients see a connect time-out. Connections that were let through before a policy came go on, as with most network
//! plugins (conntrack state `established`).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::model::{Allow, Isolation, PodIsolation};
use super::nftables::{
    BaseChain, ChainKind, Expression, Hook, Register, Rule, Ruleset, Set, SetContent, Verdict, destination, destination_in,
    destination_port, not_destination_in, not_source_in, protocol, replies, source, source_in,
};

const ISOLATED_SOURCES: &str = "isolated-egress";
const ISOLATED_DESTINATIONS: &str = "isolated-ingress";
const ADDRESS: Register = Register(0);
/// `filter` of the nft tool.
const FILTER: i32 = 0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// Adds what restricts the pods in `local`, those of this node.
pub(super) fn add_policies(rules: &mut Ruleset, local: Ipv4Net, isolations: &[PodIsolation]) {
    let mut egress = BTreeMap::new();
    let mut ingress = BTreeMap::new();
    let mut list = Vec::new();
    for isolation in isolations.iter().filter(|isolation| local.contains(&isolation.pod)) {
        for (direction, state, jumps) in
            [(Direction::Egress, &isolation.egress, &mut egress), (Direction::Ingress, &isolation.ingress, &mut ingress)]
        {
            match state {
                Isolation::Open => {}
                Isolation::Only(allowed) => {
                    let chain = add_isolation(rules, direction, isolation.pod, allowed);
                    jumps.insert(isolation.pod.octets().to_vec(), Verdict::Jump(chain.into()));
                }
                Isolation::Severed => {
                    let pod = Ipv4Net::from(isolation.pod);
                    let packets = if direction == Direction::Egress { source_in(pod) } else { destination_in(pod) };
                    list.push(Rule::new("severed", [packets, vec![Expression::Counter, Expression::Verdict(Verdict::Drop)]]));
                }
            }
        }
    }
    for (name, jumps) in [(ISOLATED_SOURCES, egress), (ISOLATED_DESTINATIONS, ingress)] {
        rules.add_set(name, 4, SetContent::Verdicts(jumps));
    }
    let decide = |map: &str| vec![Expression::Decide { key: ADDRESS, map: map.to_owned() }];
    list.extend([
        Rule::new("replies and running connections", [replies(), vec![Expression::Verdict(Verdict::Accept)]]),
        // Chains return for what they allow, so that both ends have their say.
        Rule::new("what isolated pods send", [vec![source(ADDRESS)], decide(ISOLATED_SOURCES)]),
        Rule::new("what isolated pods receive", [vec![destination(ADDRESS)], decide(ISOLATED_DESTINATIONS)]),
    ]);
    rules.add_base_chain("policy-forward", BaseChain { kind: ChainKind::Filter, hook: Hook::Forward, priority: FILTER }, list);
}

/// Adds the chain with all that is let through to or from the pod, and returns its name.
fn add_isolation(rules: &mut Ruleset, direction: Direction, pod: Ipv4Addr, allowed: &[Allow]) -> String {
    let name = format!("{}-{pod}", if direction == Direction::Ingress { "ingress" } else { "egress" });
    let pass = || vec![Expression::Counter, Expression::Verdict(Verdict::Return)];
    // "Pods cannot block access to themselves" (Kubernetes documentation of NetworkPolicy).
    let mut list = vec![Rule::new("the pod itself", [peer_in(direction, Ipv4Net::from(pod)), pass()])];
    for allow in allowed {
        for peers in peer_conditions(direction, allow) {
            for ports in port_conditions(allow) {
                list.push(Rule::new("allowed", [peers.clone(), ports, pass()]));
            }
        }
    }
    list.push(Rule::new("not allowed", [vec![Expression::Counter, Expression::Verdict(Verdict::Drop)]]));
    rules.add_chain(name.clone(), list);
    name
}

/// One entry for each rule that is needed for the peers.
fn peer_conditions(direction: Direction, allow: &Allow) -> Vec<Vec<Expression>> {
    let Some(peers) = &allow.peers else { return vec![Vec::new()] };
    let (hosts, ranges): (Vec<_>, Vec<_>) = peers.iter().partition(|(range, excepted)| range.prefix_len() == 32 && excepted.is_empty());
    let mut conditions = Vec::new();
    if !hosts.is_empty() {
        // Selectors give many single addresses: one look-up for all of them.
        let mut elements: Vec<_> = hosts.iter().map(|(host, _)| (host.network().octets().to_vec(), Vec::new())).collect();
        elements.sort();
        elements.dedup();
        let load = if direction == Direction::Ingress { source(ADDRESS) } else { destination(ADDRESS) };
        let set = Set::Anonymous { key_length: 4, data_length: None, elements };
        conditions.push(vec![load, Expression::Contained { key: ADDRESS, set }]);
    }
    conditions.extend(ranges.into_iter().map(|(range, excepted)| {
        let mut condition = peer_in(direction, *range);
        condition.extend(excepted.iter().flat_map(|except| match direction {
            Direction::Ingress => not_source_in(*except),
            Direction::Egress => not_destination_in(*except),
        }));
        condition
    }));
    conditions
}

fn port_conditions(allow: &Allow) -> Vec<Vec<Expression>> {
    let Some(ports) = &allow.ports else { return vec![Vec::new()] };
    ports
        .iter()
        .map(|range| {
            let mut condition = protocol(range.protocol);
            condition.extend(destination_port(range.first..=range.last));
            condition
        })
        .collect()
}

fn peer_in(direction: Direction, range: Ipv4Net) -> Vec<Expression> {
    match direction {
        Direction::Ingress => source_in(range),
        Direction::Egress => destination_in(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 5);

    fn rules(local: &str, allowed: Vec<Allow>) -> Ruleset {
        let mut rules = Ruleset::default();
        let isolation = PodIsolation { pod: POD, ingress: Isolation::Only(allowed), egress: Isolation::Open };
        add_policies(&mut rules, local.parse().unwrap(), &[isolation]);
        rules
    }

    #[test]
    fn only_the_pods_own_node_has_rules_for_it() {
        assert!(rules("10.244.0.0/24", vec![]).chains.contains_key("ingress-10.244.0.5"));
        assert_eq!(rules("10.244.1.0/24", vec![]).chains.len(), 1, "the base chain alone");
    }

    #[test]
    fn a_severed_pod_loses_its_running_connections_too() {
        let mut rules = Ruleset::default();
        let isolation = PodIsolation { pod: POD, ingress: Isolation::Severed, egress: Isolation::Severed };
        add_policies(&mut rules, "10.244.0.0/24".parse().unwrap(), &[isolation]);
        assert_eq!(rules.chains["policy-forward"].rules.len(), 5, "two drops before what accepts running connections");
    }

    #[test]
    fn an_open_direction_is_not_looked_at() {
        let rules = rules("10.244.0.0/24", vec![]);
        assert_eq!(rules.sets[ISOLATED_SOURCES].content, SetContent::Verdicts(BTreeMap::new()));
        assert_ne!(rules.sets[ISOLATED_DESTINATIONS].content, SetContent::Verdicts(BTreeMap::new()));
    }

    #[test]
    fn single_addresses_share_one_rule() {
        let hosts = (1..=100).map(|last| (Ipv4Net::from(Ipv4Addr::new(10, 244, 1, last)), vec![])).collect();
        let rules = rules("10.244.0.0/24", vec![Allow { peers: Some(hosts), ports: None }]);
        assert_eq!(rules.chains["ingress-10.244.0.5"].rules.len(), 3, "itself, the peers, the drop");
    }

    #[test]
    fn an_empty_list_of_peers_or_ports_allows_nothing() {
        for allow in [Allow { peers: Some(vec![]), ports: None }, Allow { peers: None, ports: Some(vec![]) }] {
            assert_eq!(rules("10.244.0.0/24", vec![allow]).chains["ingress-10.244.0.5"].rules.len(), 2);
        }
    }
}
