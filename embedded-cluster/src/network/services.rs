//! Services as kube-proxy carries them out: the destination of a connection to a ClusterIP or NodePort is translated to
//! a random endpoint; without endpoints it is rejected.
//!
//! The layout follows kube-proxy's nftables mode: one map from (address, protocol, port) to the Service's chain, so that
//! the cost for a packet does not grow with the number of Services, and a change touches only what changed. Where modes
//! differ: connections to a ClusterIP's port that the Service does not have, and to ClusterIPs that no Service has, are
//! dropped (a time-out for the client, which is how it ends in iptables mode too, kind's default).
//!
//! Translation is decided once, on a connection's first packet; the kernel's connection tracking repeats it for all
//! others. So established connections stay with their endpoint when endpoints change, as in any cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::model::{Protocol, ServicePort};
use super::nftables::{
    BaseChain, ChainKind, Comparison, Expression, Hook, Register, Rule, Ruleset, Set, SetContent, Verdict, connection_was_redirected,
    destination, destination_in, new_connection, original_destination, service_key, source,
};

/// `dstnat` and `srcnat` of the nft tool.
const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;
/// After translation, which for what the node itself sends happens in the same hook, and before policies.
const BEFORE_POLICIES: i32 = -90;

const SERVICES: &str = "services";
const REJECTED: &str = "rejected-services";
const HAIRPINS: &str = "hairpins";
const KEY: Register = Register(0);
const ENDPOINT_NUMBER: Register = Register(3);
/// Address and port, in two consecutive registers.
const ENDPOINT_ADDRESS: Register = Register(4);
const ENDPOINT_PORT: Register = Register(5);
const CLIENT: Register = Register(6);

/// What a node needs to know besides the Services.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceSurroundings {
    pub(super) node_address: Ipv4Addr,
    pub(super) service_network: Ipv4Net,
}

/// A Service port and its rules, which are the same on every node.
pub(super) struct RenderedService {
    port: Arc<ServicePort>,
    chain: Arc<str>,
    rules: Ruleset,
}

/// All Service ports with their rules. Those of ports that stay the same are kept: of a thousand Services mostly one changes.
#[derive(Default)]
pub(super) struct RenderedServices {
    list: Vec<Arc<RenderedService>>,
}

impl RenderedServices {
    pub(super) fn update(&mut self, ports: &[Arc<ServicePort>]) {
        // Each is held here, so no other can have its address.
        let known: HashMap<usize, Arc<RenderedService>> =
            self.list.drain(..).map(|rendered| (Arc::as_ptr(&rendered.port).addr(), rendered)).collect();
        let render = |port: &Arc<ServicePort>| known.get(&Arc::as_ptr(port).addr()).cloned().unwrap_or_else(|| Arc::new(render(port)));
        self.list = ports.iter().map(render).collect();
    }
}

fn render(port: &Arc<ServicePort>) -> RenderedService {
    let mut rules = Ruleset::default();
    let chain = if port.endpoints.is_empty() { String::new() } else { add_service_chain(&mut rules, port) };
    RenderedService { port: port.clone(), chain: chain.into(), rules }
}

pub(super) fn add_services(rules: &mut Ruleset, surroundings: ServiceSurroundings, services: &RenderedServices) {
    let mut chains_by_key = BTreeMap::new();
    let mut rejected = BTreeSet::new();
    let mut hairpins = BTreeSet::new();
    for RenderedService { port: service, chain, rules: own } in services.list.iter().map(|service| &**service) {
        let keys = [Some((service.cluster_ip, service.port)), service.node_port.map(|port| (surroundings.node_address, port))];
        let keys = keys.into_iter().flatten().map(|(address, port)| key(address, service.protocol, port));
        if service.endpoints.is_empty() {
            rejected.extend(keys);
            continue;
        }
        rules.chains.extend(own.chains.iter().map(|(name, chain)| (name.clone(), chain.clone())));
        rules.sets.extend(own.sets.iter().map(|(name, set)| (name.clone(), set.clone())));
        chains_by_key.extend(keys.map(|key| (key, Verdict::Goto(chain.clone()))));
        hairpins.extend(service.endpoints.iter().map(|(address, _)| [address.octets(), address.octets()].concat()));
    }
    rules.add_set(SERVICES, 12, SetContent::Verdicts(chains_by_key));
    rules.add_set(REJECTED, 12, SetContent::Keys(rejected));
    rules.add_set(HAIRPINS, 8, SetContent::Keys(hairpins));
    add_translation(rules, surroundings);
    add_rejection(rules, surroundings);
}

fn add_translation(rules: &mut Ruleset, surroundings: ServiceSurroundings) {
    let to_service = || {
        Rule::new("translate connections to Services", [service_key(KEY), vec![Expression::Decide { key: KEY, map: SERVICES.to_owned() }]])
    };
    let nat = |hook, priority| BaseChain { kind: ChainKind::Nat, hook, priority };
    rules.add_base_chain("nat-prerouting", nat(Hook::Prerouting, DESTINATION_NAT), vec![to_service()]);
    // What the node's own processes send passes no prerouting hook.
    rules.add_base_chain("nat-output", nat(Hook::Output, DESTINATION_NAT), vec![to_service()]);

    let pair = Register(KEY.0 + 1);
    let hairpin = Expression::Contained { key: KEY, set: Set::Named(HAIRPINS.to_owned()) };
    let masquerade = |comment: &str, condition: Vec<Expression>| {
        // Rather than the kernel's `masquerade`, which ends connections whose packets begin to leave by another
        // interface, as they do when a link gets a latency. The node has one address either way.
        let to_node_address = vec![
            Expression::Counter,
            Expression::Immediate { into: KEY, value: surroundings.node_address.octets().to_vec() },
            Expression::TranslateSource { address: KEY },
        ];
        Rule::new(comment, [connection_was_redirected(), condition, to_node_address])
    };
    rules.add_base_chain(
        "nat-postrouting",
        nat(Hook::Postrouting, SOURCE_NAT),
        vec![
            // The pod would see a packet from its own address and answer itself over loopback.
            masquerade("masquerade pods that reach themselves by a Service", vec![source(KEY), destination(pair), hairpin]),
            // The endpoint may be on another node, which must not answer the client directly.
            masquerade("masquerade connections to NodePorts", original_destination(surroundings.node_address)),
        ],
    );
}

fn add_rejection(rules: &mut Ruleset, surroundings: ServiceSurroundings) {
    let reject = || {
        Rule::new(
            "reject connections to Services without endpoints",
            [
                new_connection(),
                service_key(KEY),
                vec![
                    Expression::Contained { key: KEY, set: Set::Named(REJECTED.to_owned()) },
                    Expression::Counter,
                    Expression::RejectPortUnreachable,
                ],
            ],
        )
    };
    // What was translated no longer has a ClusterIP here.
    let unallocated = || {
        let dropped = vec![Expression::Counter, Expression::Verdict(Verdict::Drop)];
        Rule::new("drop what no Service takes", [destination_in(surroundings.service_network), dropped])
    };
    let filter = |hook| BaseChain { kind: ChainKind::Filter, hook, priority: BEFORE_POLICIES };
    rules.add_base_chain("reject-input", filter(Hook::Input), vec![reject()]);
    rules.add_base_chain("reject-forward", filter(Hook::Forward), vec![reject(), unallocated()]);
    rules.add_base_chain("reject-output", filter(Hook::Output), vec![reject(), unallocated()]);
}

/// Adds the chain that chooses an endpoint, and returns its name.
fn add_service_chain(rules: &mut Ruleset, service: &ServicePort) -> String {
    let chain = format!("service-{}-{}-{}", service.cluster_ip, protocol_name(service.protocol), service.port);
    let mut chain_rules = Vec::new();
    if let Some(timeout) = service.client_affinity {
        for (address, port) in &service.endpoints {
            // Named by its time-out too: a set's time-out cannot be changed.
            let seen = format!("clients-{chain}-{address}-{port}-{}", timeout.as_millis());
            rules.add_set(seen.as_str(), 4, SetContent::Remembered(timeout));
            let remember = Expression::Remember { key: CLIENT, set: seen.clone(), timeout };
            let endpoint_chain = format!("{chain}-{address}-{port}");
            rules.add_chain(
                endpoint_chain.as_str(),
                vec![Rule::new(
                    format!("{}: remember the client", service.name),
                    [vec![source(CLIENT), remember], to_endpoint(*address, *port)],
                )],
            );
            chain_rules.push(Rule::new(
                format!("{}: clients of {address}:{port}", service.name),
                [vec![
                    source(CLIENT),
                    Expression::Contained { key: CLIENT, set: Set::Named(seen) },
                    Expression::Verdict(Verdict::Goto(endpoint_chain.into())),
                ]],
            ));
        }
        for (index, (address, port)) in service.endpoints.iter().enumerate() {
            // Each takes its share of what those before it left; the last takes all.
            let remaining = (service.endpoints.len() - index) as u32;
            let chosen = vec![
                Expression::Random { modulus: remaining, into: ENDPOINT_NUMBER },
                Expression::Compare { register: ENDPOINT_NUMBER, comparison: Comparison::Equal, value: vec![0; 4] },
                Expression::Verdict(Verdict::Goto(format!("{chain}-{address}-{port}").into())),
            ];
            chain_rules.push(Rule::new(format!("{}: new clients to {address}:{port}", service.name), [chosen]));
        }
    } else {
        chain_rules.push(Rule::new(service.name.clone(), [to_random_endpoint(service)]));
    }
    rules.add_chain(chain.as_str(), chain_rules);
    chain
}

fn to_random_endpoint(service: &ServicePort) -> Vec<Expression> {
    let elements = (0u32..)
        .zip(&service.endpoints)
        .map(|(number, (address, port))| (number.to_ne_bytes().to_vec(), [address.octets(), port_register(*port)].concat()))
        .collect();
    let map = Set::Anonymous { key_length: 4, data_length: Some(8), elements };
    vec![
        Expression::Counter,
        Expression::Random { modulus: service.endpoints.len() as u32, into: ENDPOINT_NUMBER },
        Expression::Lookup { key: ENDPOINT_NUMBER, map, into: ENDPOINT_ADDRESS },
        Expression::TranslateDestination { address: ENDPOINT_ADDRESS, port: ENDPOINT_PORT },
    ]
}

fn to_endpoint(address: Ipv4Addr, port: u16) -> Vec<Expression> {
    vec![
        Expression::Immediate { into: ENDPOINT_ADDRESS, value: address.octets().to_vec() },
        Expression::Immediate { into: ENDPOINT_PORT, value: port.to_be_bytes().to_vec() },
        Expression::TranslateDestination { address: ENDPOINT_ADDRESS, port: ENDPOINT_PORT },
    ]
}

/// A port at the start of a register, padded.
fn port_register(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn key(address: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    [address.octets(), [protocol.number(), 0, 0, 0], port_register(port)].concat()
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NODE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);

    fn rules(services: &[ServicePort]) -> Ruleset {
        let mut rules = Ruleset::default();
        let surroundings = ServiceSurroundings { node_address: NODE, service_network: "10.96.0.0/16".parse().unwrap() };
        let mut rendered = RenderedServices::default();
        rendered.update(&services.iter().cloned().map(Arc::new).collect::<Vec<_>>());
        add_services(&mut rules, surroundings, &rendered);
        rules
    }

    fn service(endpoints: &[(Ipv4Addr, u16)]) -> ServicePort {
        ServicePort {
            name: "shop/cart:http".to_owned(),
            cluster_ip: Ipv4Addr::new(10, 96, 0, 7),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30080),
            endpoints: endpoints.to_vec(),
            client_affinity: None,
        }
    }

    fn keys(rules: &Ruleset, set: &str) -> Vec<Vec<u8>> {
        match &rules.sets[set].content {
            SetContent::Keys(keys) => keys.iter().cloned().collect(),
            SetContent::Verdicts(map) => map.keys().cloned().collect(),
            SetContent::Remembered(_) => Vec::new(),
        }
    }

    const BOTH_KEYS: [[u8; 12]; 2] = [[10, 96, 0, 7, 6, 0, 0, 0, 0, 80, 0, 0], [172, 18, 0, 2, 6, 0, 0, 0, 0x75, 0x80, 0, 0]];

    #[test]
    fn a_service_is_either_translated_or_rejected() {
        let translated = rules(&[service(&[(Ipv4Addr::new(10, 244, 0, 5), 8080)])]);
        assert_eq!(keys(&translated, SERVICES), BOTH_KEYS);
        assert!(keys(&translated, REJECTED).is_empty());
        let rejected = rules(&[service(&[])]);
        assert!(keys(&rejected, SERVICES).is_empty());
        assert_eq!(keys(&rejected, REJECTED), BOTH_KEYS);
    }

    #[test]
    fn rules_of_a_service_that_stays_the_same_are_kept() {
        let port =
            |last| Arc::new(ServicePort { cluster_ip: Ipv4Addr::new(10, 96, 0, last), ..service(&[(Ipv4Addr::new(10, 244, 0, 5), 80)]) });
        let (one, two) = (port(1), port(2));
        let mut rendered = RenderedServices::default();
        rendered.update(&[one.clone(), two.clone()]);
        let before = rendered.list.clone();
        rendered.update(&[two, port(3)]);
        assert!(Arc::ptr_eq(&rendered.list[0], &before[1]));
        assert_eq!(
            rendered.list.iter().map(|one| &*one.chain).collect::<Vec<_>>(),
            ["service-10.96.0.2-tcp-80", "service-10.96.0.3-tcp-80"]
        );
    }

    #[test]
    fn endpoints_are_numbered_from_zero_to_the_modulus() {
        let endpoints: Vec<_> = (1..=3).map(|last| (Ipv4Addr::new(10, 244, 0, last), 8080)).collect();
        let rules = rules(&[service(&endpoints)]);
        let expressions = &rules.chains["service-10.96.0.7-tcp-80"].rules[0].expressions;
        let modulus = expressions.iter().find_map(|one| if let Expression::Random { modulus, .. } = one { Some(*modulus) } else { None });
        let elements = expressions.iter().find_map(|one| match one {
            Expression::Lookup { map: Set::Anonymous { elements, .. }, .. } => Some(elements.clone()),
            _ => None,
        });
        assert_eq!(modulus, Some(3));
        let numbers: Vec<_> = elements.unwrap().into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [0u32, 1, 2].map(|number| number.to_ne_bytes().to_vec()));
    }

    #[test]
    fn clients_with_affinity_are_looked_up_before_new_ones_are_spread() {
        let endpoints = [(Ipv4Addr::new(10, 244, 0, 5), 8080), (Ipv4Addr::new(10, 244, 0, 6), 8080)];
        let sticky = ServicePort { client_affinity: Some(Duration::from_secs(10800)), ..service(&endpoints) };
        let rules = rules(&[sticky]);
        let chain = &rules.chains["service-10.96.0.7-tcp-80"].rules;
        let known = |rule: &Rule| rule.expressions.iter().any(|one| matches!(one, Expression::Contained { .. }));
        assert_eq!(chain.iter().map(known).collect::<Vec<_>>(), [true, true, false, false]);
        let last = &chain[3].expressions[0];
        assert_eq!(*last, Expression::Random { modulus: 1, into: ENDPOINT_NUMBER }, "the last endpoint takes all that is left");
    }
}
