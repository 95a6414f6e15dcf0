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
    pub lifetime: Lifetime,
    /// What is started as the cluster's first process and is `/gatelab` in every container; `None`: the running one.
    pub executable: Option<PathBuf>,
    /// Whether a cluster DNS (Deployment `coredns`, Service `kube-dns`) is installed.
    pub cluster_dns: bool,
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
            lifetime: Lifetime::Attached,
            executable: None,
            cluster_dns: true,
            ready_within: Duration::from_secs(20),
        }
    }
}
