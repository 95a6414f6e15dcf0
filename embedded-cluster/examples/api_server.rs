//! The API server alone, with a node agent that runs nothing: for trying clients on it.
//!
//! `cargo run -p embedded-cluster --example api_server -- /tmp/kubeconfig` then `kubectl --kubeconfig /tmp/kubeconfig …`
#![allow(clippy::print_stdout, reason = "an example that tells where it listens")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use embedded_cluster::api::{ApiState, Certificates, TokenIssuer, serve};
use embedded_cluster::kubelet::{AccessError, ContainerTarget, LogOptions, PodAccess};
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
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    let path = std::env::args().nth(1).unwrap_or_else(|| "kubeconfig".to_owned());
    let began = Instant::now();
    let store = Store::default();
    let namespaces: Typed<Namespace> = Typed::new(&store);
    for name in ["default", "kube-system"] {
        namespaces.create("", &serde_json::from_value(json!({"metadata": {"name": name}}))?)?;
    }
    let certificates = Arc::new(Certificates::generate()?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = format!("https://{}", listener.local_addr()?);
    certificates.write_kubeconfig(Path::new(&path), &server, "lab")?;
    let state = Arc::new(ApiState { store, access: Arc::new(FakeNode), certificates, tokens: Arc::new(TokenIssuer::new()) });
    println!("{server} after {:?}, kubeconfig {path}", began.elapsed());
    serve(vec![listener], state, CancellationToken::new()).await;
    Ok(())
}
