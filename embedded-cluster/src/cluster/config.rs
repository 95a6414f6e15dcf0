//! What a cluster is to be.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::runtime::Image;

/// How long a cluster lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifetime {
    /// Ends with the process that started it, however that ends.
    Attached,
    /// Ends when it is stopped.
    Detached,
}

/// The kubelets' heartbeats and what the control plane makes of their absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMonitor {
    /// Between two renewals of a node's Lease; at most a third of `grace`. Kubernetes: 10 s.
    pub renew_every: Duration,
    /// Kubernetes: 50 s (`--node-monitor-grace-period`; 40 s before 1.32).
    pub grace: Duration,
}

impl Default for NodeMonitor {
    fn default() -> Self {
        Self { renew_every: Duration::from_secs(10), grace: Duration::from_secs(50) }
    }
}

impl NodeMonitor {
    /// A lost node is noticed after `grace`, with heartbeats in proportion.
    pub fn noticing_after(grace: Duration) -> Self {
        Self { renew_every: grace / 5, grace }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Names the lab among this user's labs: a DNS label (lower-case letters, digits, `-`).
    pub name: String,
    /// `None`: [`super::default_state_dir`].
    pub state_dir: Option<PathBuf>,
    /// At least 1. They are called `node-0`, `node-1`, …; links between them are set by node annotations later.
    pub nodes: u8,
    /// Added to the default images of [`crate::runtime::Images`].
    pub images: BTreeMap<String, Image>,
    /// A folder whose `bin` holds tools that every container finds on its PATH.
    pub tools: Option<PathBuf>,
    pub lifetime: Lifetime,
    /// What is started as the cluster's first process and is `/gatelab` in every container; `None`: the running one.
    pub executable: Option<PathBuf>,
    /// Whether a cluster DNS (Deployment `coredns`, Service `kube-dns`) is installed.
    pub cluster_dns: bool,
    /// How long a node may be silent before the control plane takes it for lost.
    pub node_monitor: NodeMonitor,
    /// Bound of the wait for the API and all nodes to be ready.
    pub ready_within: Duration,
}

impl ClusterConfig {
    /// Two nodes, DNS, attached.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state_dir: None,
            nodes: 2,
            images: BTreeMap::new(),
            tools: None,
            lifetime: Lifetime::Attached,
            executable: None,
            cluster_dns: true,
            node_monitor: NodeMonitor::default(),
            ready_within: Duration::from_secs(20),
        }
    }
}
