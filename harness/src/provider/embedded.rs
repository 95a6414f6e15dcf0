//! Clusters inside one process tree of this machine: see the crate `embedded-cluster`.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use embedded_cluster::cluster::{self, Cluster, ClusterConfig, ClusterError, NodeMonitor};
use embedded_cluster::runtime::Image;
use gateways::fetch::{Search, find_tools};

use super::interface::{ClusterHandle, ClusterRequest, ClusterSetting, Lifetime, Provider, ProviderError};

/// The network controller follows objects by a watch and programs the kernel within milliseconds.
const QUIET: Duration = Duration::from_millis(150);

pub struct Embedded;

struct Handle(Cluster);

impl Embedded {
    /// A detached cluster that runs already.
    pub fn attach(state_dir: &Path) -> Result<Box<dyn ClusterHandle>, ProviderError> {
        Ok(Box::new(Handle(Cluster::attach(state_dir).map_err(|error| failed(&error))?)))
    }
}

#[async_trait]
impl Provider for Embedded {
    fn name(&self) -> &str {
        "embedded"
    }

    fn setting(&self) -> ClusterSetting {
        ClusterSetting { quiet: QUIET, lacking: Vec::new(), takers: None, at_once: None, patience: 1, reported_within: Duration::ZERO }
    }

    async fn create(&self, request: &ClusterRequest) -> Result<Box<dyn ClusterHandle>, ProviderError> {
        let mut config = ClusterConfig::new(&request.name);
        config.nodes = u8::try_from(request.nodes).unwrap_or(u8::MAX);
        config.ready_within = request.within;
        if let Some(grace) = request.node_grace {
            config.node_monitor = NodeMonitor::noticing_after(grace);
        }
        config.lifetime = match request.lifetime {
            Lifetime::Attached => cluster::Lifetime::Attached,
            Lifetime::Detached => cluster::Lifetime::Detached,
        };
        config.tools = Search::from_environment().ok().and_then(|search| find_tools(&search));
        for image in &request.images {
            let content = image.content.iter().cloned();
            let mounted = content.fold(Image::of_command(["/gatelab"]), |made, (source, target)| made.with_mount(source, target));
            config.images.insert(image.name.clone(), mounted);
        }
        let cluster = Cluster::start(config).await.map_err(|error| failed(&error))?;
        Ok(Box::new(Handle(cluster)))
    }
}

#[async_trait]
impl ClusterHandle for Handle {
    fn kubeconfig(&self) -> &Path {
        self.0.kubeconfig()
    }

    fn log_tail(&self) -> String {
        self.0.log_tail()
    }

    async fn delete(self: Box<Self>) -> Result<(), ProviderError> {
        self.0.stop().await.map_err(|error| failed(&error))
    }
}

fn failed(error: &ClusterError) -> ProviderError {
    ProviderError {
        provider: "embedded".into(),
        detail: error.to_string(),
        hopeless: matches!(error, ClusterError::NamespacesForbidden(_) | ClusterError::StateDir { .. } | ClusterError::Launch { .. }),
        hints: Vec::new(),
    }
}
