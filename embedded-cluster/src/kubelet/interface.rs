//! What the API server asks of a node for the pod subresources log, exec, attach and port-forward.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::net::TcpStream;

use crate::runtime::{ExecProcess, ExecSpec};

/// One container of one pod; without a name, the annotation `kubectl.kubernetes.io/default-container` or the only one.
#[derive(Clone, Debug)]
pub struct ContainerTarget {
    pub namespace: String,
    pub pod: String,
    pub container: Option<String>,
}

/// Query of `GET …/pods/{name}/log`.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub tail_lines: Option<usize>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<usize>,
}

/// Kept apart so that the API server can answer with the matching status.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AccessError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Internal(String),
}

/// What the processes of one running container use now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUsage {
    pub namespace: String,
    pub pod: String,
    pub pod_uid: String,
    pub container: String,
    /// Bytes in memory.
    pub resident: u64,
    /// CPU time since the container's start, nanoseconds.
    pub cpu_nanoseconds: u64,
}

#[async_trait]
pub trait PodAccess: Send + Sync + 'static {
    async fn logs(&self, target: &ContainerTarget, options: &LogOptions)
    -> Result<BoxStream<'static, std::io::Result<Bytes>>, AccessError>;

    async fn exec(&self, target: &ContainerTarget, spec: ExecSpec) -> Result<ExecProcess, AccessError>;

    async fn attach(&self, target: &ContainerTarget, spec: ExecSpec) -> Result<ExecProcess, AccessError>;

    async fn port_forward(&self, namespace: &str, pod: &str, port: u16) -> Result<TcpStream, AccessError>;

    /// Of every running container, or of those in one namespace.
    async fn usage(&self, namespace: Option<&str>) -> Vec<ContainerUsage>;
}
