//! An API server on loopback whose node agent runs commands on the host instead of in containers.
#![allow(dead_code, reason = "shared by tests and an example, each of which needs a part")]
#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use embedded_cluster::api::{ApiState, Certificates, Metrics, TokenIssuer, create_default_roles, serve};
use embedded_cluster::kubelet::{AccessError, ContainerTarget, ContainerUsage, LogOptions, PodAccess};
use embedded_cluster::runtime::{ExecProcess, ExecSpec};
use embedded_cluster::store::{Store, Typed};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Logs are two lines; commands run on the host.
struct FakeNode;

#[async_trait]
impl PodAccess for FakeNode {
    async fn logs(
        &self,
        target: &ContainerTarget,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, AccessError> {
        let mut lines = vec![format!("first line of {}/{}\n", target.namespace, target.pod), format!("{options:?}\n")];
        if let Some(tail) = options.tail_lines {
            lines.drain(..lines.len().saturating_sub(tail));
        }
        Ok(futures::stream::iter(lines.into_iter().map(|line| Ok(Bytes::from(line)))).boxed())
    }

    async fn exec(&self, _target: &ContainerTarget, spec: ExecSpec) -> Result<ExecProcess, AccessError> {
        let (program, arguments) = spec.command.split_first().ok_or_else(|| AccessError::BadRequest("no command".to_owned()))?;
        let piped = std::process::Stdio::piped;
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(if spec.stdin { piped() } else { std::process::Stdio::null() })
            .stdout(piped())
            .stderr(piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| AccessError::Internal(format!("exec: \"{program}\": {error}")))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (sender, exit) = oneshot::channel();
        let task = tokio::spawn(async move {
            let code = child.wait().await.ok().and_then(|status| status.code()).unwrap_or(137);
            let _ = sender.send(code);
        });
        Ok(ExecProcess {
            stdin: stdin.map(|s| Box::new(s) as _),
            stdout: stdout.map(|s| Box::new(s) as _),
            stderr: stderr.map(|s| Box::new(s) as _),
            resize: None,
            exit,
            guard: Box::new(tokio_util::task::AbortOnDropHandle::new(task)),
        })
    }

    async fn attach(&self, target: &ContainerTarget, spec: ExecSpec) -> Result<ExecProcess, AccessError> {
        self.exec(target, spec).await
    }

    async fn port_forward(&self, _namespace: &str, _pod: &str, port: u16) -> Result<TcpStream, AccessError> {
        TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| AccessError::Internal(error.to_string()))
    }

    /// Two containers: one that computes without end and one that sleeps.
    async fn usage(&self, _namespace: Option<&str>) -> Vec<ContainerUsage> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let of = |container: &str, cpu_nanoseconds, resident| ContainerUsage {
            namespace: "shop".to_owned(),
            pod: "tools".to_owned(),
            pod_uid: "u".to_owned(),
            container: container.to_owned(),
            resident,
            cpu_nanoseconds,
        };
        vec![of("busy", now, 5 << 20), of("idle", 7, 1 << 20)]
    }
}

/// A served store; stops with its test.
pub struct Lab {
    pub store: Store,
    pub state: Arc<ApiState>,
    pub server: String,
    stop: CancellationToken,
}

impl Lab {
    /// Serves a store with the namespaces `default` and `shop` on a free port.
    pub async fn start() -> Self {
        let store = Store::default();
        let namespaces: Typed<Namespace> = Typed::new(&store);
        for name in ["default", "shop"] {
            let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            namespaces.create("", &namespace).unwrap();
        }
        create_default_roles(&store).unwrap();
        let certificates = Arc::new(Certificates::generate().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("https://{}", listener.local_addr().unwrap());
        let state = Arc::new(ApiState {
            store: store.clone(),
            access: Arc::new(FakeNode),
            certificates,
            tokens: Arc::new(TokenIssuer::new()),
            metrics: Metrics::default(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(serve(vec![listener], state.clone(), stop.clone()));
        Self { store, state, server, stop }
    }

    pub fn write_kubeconfig(&self, folder: &Path) -> PathBuf {
        let path = folder.join("kubeconfig");
        self.state.certificates.write_kubeconfig(&path, &self.server, "lab").unwrap();
        path
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
