//! Puts the cluster together and keeps it running.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures::StreamExt as _;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::default_objects::{self, CLUSTER_DNS};
use super::mounts::LabMounts;
use crate::api::{self, ApiState, Certificates, Metrics, TokenIssuer};
use crate::cluster::{LaunchMessage, Request, StateDir};
use crate::controllers::{self, ControllersConfig};
use crate::handover::Channel;
use crate::hostport;
use crate::kubelet::{ApiConnection, BackOffLimits, ClusterPods, Kubelet, KubeletSettings, NodeIdentity};
use crate::network::{DataPlane, DataPlaneConfig};

use crate::runtime::{ContainerRuntime, Images, NamespaceRuntime, Reaper, RuntimeConfig};
use crate::store::{Event, Store, Typed};

/// Where the API server listens inside the cluster's network.
const API_PORT: u16 = 6443;

/// Runs until a signal asks it to end or a part that must not end does; the reason then.
pub(super) async fn run(request: Request, state_dir: StateDir, mounts: LabMounts, launcher: Arc<Channel>) -> Result<(), String> {
    let config = &request.config;
    let reaper = Reaper::start().map_err(|error| format!("wait for children: {error}"))?;
    let making = tokio::task::spawn_blocking(Certificates::generate);
    let network_config = DataPlaneConfig::default();
    let fabric_address = network_config.fabric_address;
    let network = DataPlane::new(network_config).await.map_err(|error| format!("make the cluster's network: {error}"))?;
    let nodes: Vec<NodeIdentity> = (0..config.nodes).map(node_identity).collect();
    for node in &nodes {
        network
            .add_node(&node.name, node.address, node.pod_cidr)
            .await
            .map_err(|error| format!("add {} to the network: {error}", node.name))?;
    }
    tracing::info!(nodes = nodes.len(), "the network is made");
    let on_host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| format!("listen on the host's loopback: {error}"))?;
    let api_address = on_host.local_addr().map_err(|error| format!("listen on the host's loopback: {error}"))?;
    let in_cluster = SocketAddr::from((fabric_address, API_PORT));
    let on_fabric =
        network.fabric().tcp_listen(in_cluster).await.map_err(|error| format!("listen on {in_cluster} in the cluster: {error}"))?;
    let certificates = making.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let certificates = Arc::new(certificates);
    let tokens = Arc::new(TokenIssuer::new());
    tracing::info!(%api_address, "the API server's address and certificates are made");

    let store = Store::default();
    default_objects::create(&store, fabric_address, API_PORT, config.cluster_dns)
        .map_err(|fault| format!("create the default objects: {fault}"))?;
    let images = Images::with_defaults(config.images.clone()).with_tools(config.tools.as_deref());
    let runtime_config = RuntimeConfig { images, executable: mounts.executable.clone(), root_mount: mounts.container_root.clone() };
    let runtime: Arc<dyn ContainerRuntime> = Arc::new(NamespaceRuntime::new(runtime_config, network.clone(), reaper));

    let (issuer, accounts) = (Arc::clone(&tokens), store.clone());
    let settings = KubeletSettings {
        state_dir: mounts.state.clone(),
        token_issuer: Arc::new(move |namespace, account| ApiState::issue_token(&accounts, &issuer, namespace, account)),
        ca_certificate: certificates.ca_pem(),
        cluster_dns: CLUSTER_DNS,
        cluster_domain: "cluster.local".to_owned(),
        back_off: BackOffLimits::default(),
        api: None,
    };
    let first_node = nodes.first().map(|node| node.address).ok_or("a lab needs a node")?;
    let mut kubelets: Vec<Arc<Kubelet>> = Vec::new();
    for node in &nodes {
        let tls = certificates
            .client_config(&format!("system:node:{}", node.name), &["system:nodes"])
            .map_err(|error| format!("make the certificate of {}: {error}", node.name))?;
        let netns = network.node(&node.name).ok_or_else(|| format!("{} has no network", node.name))?;
        let (renew_every, grace) = (config.node_monitor.renew_every, config.node_monitor.grace);
        let mut settings = settings.clone();
        settings.api = Some(ApiConnection { netns, address: in_cluster, tls, renew_every, grace });
        kubelets.push(Kubelet::new(&store, node.clone(), settings, Arc::clone(&runtime)));
    }

    // Whatever of these ends, ends the lab: a cluster with a part missing would be a lie.
    let mut parts: JoinSet<&'static str> = JoinSet::new();
    for kubelet in &kubelets {
        let running = kubelet.spawn();
        parts.spawn(async move {
            let _ = running.await;
            "a kubelet"
        });
    }
    let plane = network.clone();
    let mut controllers = controllers::spawn_all(
        &store,
        ControllersConfig {
            ca_certificate: certificates.ca_pem(),
            node_grace: config.node_monitor.grace,
            apply: Arc::new(move |plan| {
                let plane = plane.clone();
                Box::pin(async move { plane.apply(&plan).await.map_err(|error| error.to_string()) })
            }),
        },
    );
    parts.spawn(async move {
        controllers.join_next().await;
        "a controller"
    });
    let (ports_store, outside) = (store.clone(), network.fabric());
    parts.spawn(async move {
        hostport::follow_services(ports_store, outside, first_node).await;
        "the host port relay"
    });
    let access = Arc::new(ClusterPods::new(&store, kubelets));
    let state =
        Arc::new(ApiState { store: store.clone(), access, certificates: Arc::clone(&certificates), tokens, metrics: Metrics::default() });
    parts.spawn(async move {
        api::serve(vec![on_host, on_fabric], state, CancellationToken::new()).await;
        "the API server"
    });

    tracing::info!("kubelets, controllers and the API server are started");
    nodes_ready(&store, nodes.len()).await;
    tracing::info!("all nodes are ready");
    let kubeconfig = state_dir.kubeconfig();
    let server = format!("https://{api_address}");
    certificates.write_kubeconfig(&kubeconfig, &server, &format!("gatelab-{}", config.name)).map_err(|error| error.to_string())?;
    launcher
        .send(&LaunchMessage::Ready { api_address, kubeconfig }, &[])
        .map_err(|error| format!("tell the launcher that the lab is ready: {error}"))?;

    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        ended = parts.join_next() => match ended {
            Some(Ok(part)) => Err(format!("{part} ended unexpectedly")),
            Some(Err(error)) => Err(format!("a part of the lab failed: {error}")),
            None => Ok(()),
        },
        _ = terminate.recv() => Ok(()),
    }
}

fn node_identity(index: u8) -> NodeIdentity {
    NodeIdentity {
        name: format!("node-{index}"),
        address: Ipv4Addr::new(172, 18, 0, 2 + index),
        pod_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, index, 0), 24),
        labels: Vec::new(),
    }
}

async fn nodes_ready(store: &Store, count: usize) {
    let nodes = Typed::<Node>::new(store);
    let mut ready = std::collections::BTreeSet::new();
    let mut events = std::pin::pin!(nodes.watch());
    while let Some(event) = events.next().await {
        let Event::Applied(node) = event else { continue };
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        if conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            ready.extend(node.metadata.name.clone());
        }
        if ready.len() >= count {
            return;
        }
    }
}
