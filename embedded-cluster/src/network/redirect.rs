//! `gatelab redirect`: sends a pod's TCP traffic through its sidecar, as Istio's init container does.
//!
//! * Connections made to the pod are redirected to the sidecar's inbound port, connections made by the pod to its
//!   outbound port; the sidecar learns where they were meant to go from `SO_ORIGINAL_DST`.
//! * The sidecar's own connections must not come back to it. Istio tells them by the sidecar's user or group 1337. In a
//!   user namespace with a single user that is not possible, so they are told by their mark (`SO_MARK`): Envoy sets it
//!   with `upstream_bind_config.socket_options` (`level: 1`, `name: 36`, `int_value: 1337`, `state: STATE_PREBIND`),
//!   which needs CAP_NET_ADMIN or, since Linux 5.17, CAP_NET_RAW.
//! * Traffic over loopback stays as it is, in both directions, so that admin ports, and the sidecar's connections to the
//!   application on 127.0.0.1, work without exceptions. So does everything but TCP (DNS).
//! * What the pod's node sends (probes of the kubelet) is redirected like everything else, as it is with Istio without
//!   its probe rewriting: exclude the health port to have probes answered by the application itself.

use std::net::Ipv4Addr;

use clap::Args;
use ipnet::Ipv4Net;

use super::error::NetworkError;
use super::links::LOOPBACK;
use super::model::Protocol;
use super::netlink::NetlinkSocket;
use super::nftables::{
    self, BaseChain, ChainKind, Expression, Hook, Meta, Register, Rule, Ruleset, Verdict, destination_in, destination_port, interface,
    protocol, socket_group, socket_mark,
};

const TABLE: &str = "sidecar";
const LOOPBACK_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
/// `dstnat` of the nft tool.
const DESTINATION_NAT: i32 = -100;
const PORT: Register = Register(0);

/// Redirects the TCP traffic of the network namespace it runs in. Needs CAP_NET_ADMIN.
#[derive(Args, Clone, Debug)]
pub struct RedirectArgs {
    /// Port of the sidecar that takes connections made to this pod.
    #[arg(long, default_value_t = 15006)]
    pub inbound_port: u16,
    /// Port of the sidecar that takes connections made by this pod.
    #[arg(long, default_value_t = 15001)]
    pub outbound_port: u16,
    /// Only these ports of the pod are redirected; all when absent.
    #[arg(long, value_delimiter = ',')]
    pub include_inbound_ports: Vec<u16>,
    /// Ports of the pod that stay reachable directly (health and admin ports).
    #[arg(long, value_delimiter = ',')]
    pub exclude_inbound_ports: Vec<u16>,
    /// Destination ports that the pod reaches directly.
    #[arg(long, value_delimiter = ',')]
    pub exclude_outbound_ports: Vec<u16>,
    /// Destination ranges that the pod reaches directly.
    #[arg(long, value_delimiter = ',')]
    pub exclude_outbound_cidrs: Vec<Ipv4Net>,
    /// Connections whose socket carries this mark (SO_MARK) are the sidecar's own and are not redirected.
    #[arg(long, default_value_t = 1337)]
    pub proxy_mark: u32,
    /// Connections of processes with this group are the sidecar's own too (works where a second gid is mapped).
    #[arg(long)]
    pub proxy_gid: Option<u32>,
    /// Leave connections made by the pod alone.
    #[arg(long)]
    pub no_outbound: bool,
    /// Leave connections made to the pod alone.
    #[arg(long)]
    pub no_inbound: bool,
}

/// Installs the rules in the namespace of the calling thread, replacing those of an earlier run, as one transaction.
pub async fn run(args: RedirectArgs) -> Result<(), NetworkError> {
    install(&args)
}

fn install(args: &RedirectArgs) -> Result<(), NetworkError> {
    let mut socket = NetlinkSocket::open(libc::NETLINK_NETFILTER)?;
    nftables::replace(TABLE, &rules(args)).commit(&mut socket)
}

fn rules(args: &RedirectArgs) -> Ruleset {
    let mut rules = Ruleset::default();
    let nat = |hook| BaseChain { kind: ChainKind::Nat, hook, priority: DESTINATION_NAT };
    if !args.no_inbound {
        rules.add_base_chain("inbound", nat(Hook::Prerouting), inbound(args));
    }
    if !args.no_outbound {
        rules.add_base_chain("outbound", nat(Hook::Output), outbound(args));
    }
    rules
}

fn inbound(args: &RedirectArgs) -> Vec<Rule> {
    let mut list = vec![pass("loopback", interface(Meta::InputInterface, LOOPBACK))];
    list.extend(args.exclude_inbound_ports.iter().map(|port| pass("excluded port", tcp_port(*port))));
    if args.include_inbound_ports.is_empty() {
        list.push(redirect("to the sidecar", protocol(Protocol::Tcp), args.inbound_port));
    }
    list.extend(args.include_inbound_ports.iter().map(|port| redirect("to the sidecar", tcp_port(*port), args.inbound_port)));
    list
}

fn outbound(args: &RedirectArgs) -> Vec<Rule> {
    let mut list = vec![
        // A connection of the pod to its own address leaves by loopback too.
        pass("loopback", interface(Meta::OutputInterface, LOOPBACK)),
        pass("loopback", destination_in(LOOPBACK_RANGE)),
        pass("the sidecar's own", socket_mark(args.proxy_mark)),
    ];
    list.extend(args.proxy_gid.map(|gid| pass("the sidecar's own", socket_group(gid))));
    list.extend(args.exclude_outbound_ports.iter().map(|port| pass("excluded port", tcp_port(*port))));
    list.extend(args.exclude_outbound_cidrs.iter().map(|range| pass("excluded range", destination_in(*range))));
    list.push(redirect("to the sidecar", protocol(Protocol::Tcp), args.outbound_port));
    list
}

fn tcp_port(port: u16) -> Vec<Expression> {
    [protocol(Protocol::Tcp), destination_port(port..=port)].concat()
}

fn pass(comment: &str, condition: Vec<Expression>) -> Rule {
    Rule::new(comment, [condition, vec![Expression::Verdict(Verdict::Accept)]])
}

fn redirect(comment: &str, condition: Vec<Expression>, port: u16) -> Rule {
    let action = vec![
        Expression::Counter,
        Expression::Immediate { into: PORT, value: port.to_be_bytes().to_vec() },
        Expression::Redirect { port: PORT },
    ];
    Rule::new(comment, [condition, action])
}
