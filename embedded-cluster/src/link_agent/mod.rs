//! `gatelab links`: keeps the links of one node of a real cluster as the annotations of the nodes say, as the embedded cluster keeps
//! its own. Runs on every node, in the node's network namespace.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::controllers::{has_pod_network, link_of};
use crate::network::NetworkError;
use crate::network::outgoing::{Outgoing, Path};

/// Command line of the container command `links`.
#[derive(Clone, Debug, clap::Args)]
pub struct LinksArgs {
    /// Name of the node that this runs on.
    #[arg(long, env = "NODE_NAME")]
    pub node: String,
    /// Interface that leads to the other nodes.
    #[arg(long, default_value = "eth0")]
    pub interface: String,
    /// File that is there once the links are as the annotations say.
    #[arg(long, default_value = "/tmp/ready")]
    pub ready_file: PathBuf,
    /// Only say whether that file is there.
    #[arg(long)]
    pub check: bool,
}

/// Why the links are left alone.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    #[error("cannot reach the Kubernetes API from this pod: {0}")]
    Api(String),
    #[error("this kernel cannot hold packets up: {0}")]
    Kernel(#[from] NetworkError),
    #[error("the links are not as the annotations say yet")]
    NotReady,
    #[error("cannot listen for signals or write {path}: {source}")]
    System { path: PathBuf, source: std::io::Error },
}

/// Follows the nodes until SIGTERM; packets pass freely again afterwards.
///
/// # Errors
/// When the kernel or the API refuses.
pub async fn run(args: LinksArgs) -> Result<(), LinksError> {
    if args.check {
        return if args.ready_file.exists() { Ok(()) } else { Err(LinksError::NotReady) };
    }
    let mut outgoing = Outgoing::open(&args.interface)?;
    let system = |source| LinksError::System { path: args.ready_file.clone(), source };
    let client = Client::try_default().await.map_err(|error| LinksError::Api(error.to_string()))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut events = std::pin::pin!(watcher(Api::<Node>::all(client), watcher::Config::default()).default_backoff());
    let (mut nodes, mut listed) = (BTreeMap::new(), BTreeMap::new());
    let mut present = Vec::new();
    let mut ready = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = terminate.recv() => return Ok(()),
        };
        match event {
            None => return Err(LinksError::Api("the watch ended".to_owned())),
            // The watcher backs off and tries again by itself.
            Some(Err(error)) => tracing::warn!(%error, "following the nodes"),
            Some(Ok(watcher::Event::Init)) => listed.clear(),
            Some(Ok(watcher::Event::InitApply(node))) => _ = listed.insert(node.name_any(), node),
            Some(Ok(watcher::Event::InitDone)) => {
                nodes = std::mem::take(&mut listed);
                ready = true;
            }
            Some(Ok(watcher::Event::Apply(node))) => _ = nodes.insert(node.name_any(), node),
            Some(Ok(watcher::Event::Delete(node))) => _ = nodes.remove(&node.name_any()),
        }
        let wanted = paths(&args.node, &nodes);
        if ready && (wanted != present || !args.ready_file.exists()) {
            outgoing.set(wanted.clone())?;
            present = wanted;
            std::fs::write(&args.ready_file, "").map_err(system)?;
        }
    }
}

/// A packet to another node's pods crosses both nodes' links, and reaches no pod of a node without its pod network. A node that is cut
/// off is not heard of any more because the others lose what they send it; its own agent lets its node's packets go, or it would never
/// hear that the link is whole again.
fn paths(own: &str, nodes: &BTreeMap<String, Node>) -> Vec<Path> {
    let link = |node: Option<&Node>| node.map_or((Duration::ZERO, 0.0), link_of);
    let severed = |node: Option<&Node>| node.is_some_and(|node| !has_pod_network(node));
    let (own_latency, own_loss) = link(nodes.get(own));
    let others = nodes.iter().filter(|(name, _)| *name != own).flat_map(|(_, node)| {
        let (latency, loss) = link(Some(node));
        let pods = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()?.parse::<Ipv4Net>().ok());
        let lost = if severed(Some(node)) || severed(nodes.get(own)) { 1.0 } else { 1.0 - (1.0 - own_loss) * (1.0 - loss) };
        let to_pods = pods.map(|to| Path { to, latency: own_latency + latency, loss: lost });
        let to_node = address(node).filter(|_| loss >= 1.0).map(|to| Path { to: to.into(), latency: Duration::ZERO, loss: 1.0 });
        [to_pods, to_node].into_iter().flatten()
    });
    others.filter(|path| !path.latency.is_zero() || path.loss > 0.0).collect()
}

/// By which the other nodes know it.
fn address(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().filter(|address| address.type_ == "InternalIP").find_map(|address| address.address.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes(annotations: [(&str, serde_json::Value); 3]) -> BTreeMap<String, Node> {
        let node = |(number, (name, annotations)): (usize, (&str, serde_json::Value))| {
            let object =
                json!({ "metadata": { "name": name, "annotations": annotations }, "spec": { "podCIDR": format!("10.244.{number}.0/24") },
                "status": { "addresses": [{ "type": "Hostname", "address": name }, { "type": "InternalIP", "address": format!("10.89.0.{number}") }] } });
            (name.to_owned(), serde_json::from_value(object).unwrap())
        };
        annotations.into_iter().enumerate().map(node).collect()
    }

    #[test]
    fn both_links_hold_a_packet_and_links_without_delay_hold_none() {
        let slow = json!({ "gatelab.dev/link-latency": "20ms" });
        let lossy = json!({ "gatelab.dev/link-latency": "10ms", "gatelab.dev/link-loss": "50%" });
        let all = nodes([("a", slow), ("b", json!({})), ("c", lossy)]);
        let told = |own: &str| {
            let list = paths(own, &all).into_iter();
            list.map(|path| (path.to.to_string(), path.latency.as_millis(), path.loss)).collect::<Vec<_>>()
        };
        assert_eq!(told("a"), [("10.244.1.0/24".into(), 20, 0.0), ("10.244.2.0/24".into(), 30, 0.5)]);
        assert_eq!(told("b"), [("10.244.0.0/24".into(), 20, 0.0), ("10.244.2.0/24".into(), 10, 0.5)]);
        assert!(paths("a", &nodes([("a", json!({})), ("b", json!({})), ("c", json!({}))])).is_empty());
    }

    fn lost(own: &str, all: &BTreeMap<String, Node>) -> Vec<String> {
        let paths = paths(own, all);
        assert!(paths.iter().all(|path| path.loss == 1.0), "{paths:?}");
        paths.iter().map(|path| path.to.to_string()).collect()
    }

    #[test]
    fn a_node_that_is_cut_off_falls_silent_and_still_hears_when_its_link_is_whole_again() {
        let all = nodes([("a", json!({})), ("b", json!({ "gatelab.dev/link-loss": "100%" })), ("c", json!({}))]);
        assert_eq!(lost("a", &all), ["10.244.1.0/24", "10.89.0.1/32"]);
        assert_eq!(lost("b", &all), ["10.244.0.0/24", "10.244.2.0/24"]);
    }

    #[test]
    fn without_its_pod_network_a_node_is_reached_and_its_pods_are_not() {
        let all = nodes([("a", json!({})), ("b", json!({ "gatelab.dev/pod-network": "down" })), ("c", json!({}))]);
        assert_eq!(lost("a", &all), ["10.244.1.0/24"]);
        assert_eq!(lost("b", &all), ["10.244.0.0/24", "10.244.2.0/24"]);
        let up = nodes([("a", json!({})), ("b", json!({ "gatelab.dev/pod-network": "up" })), ("c", json!({}))]);
        assert!(paths("a", &up).is_empty());
    }
}
