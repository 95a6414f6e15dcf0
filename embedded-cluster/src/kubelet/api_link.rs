//! The node's way to the API server: a TLS connection out of the node's own network namespace, over its link.
//!
//! The kubelets of a lab live in the same process as the store and could reach it always. So that a node that is cut off
//! behaves like one, its heartbeats really cross the link, and what the kubelet is told and what it reports waits until a
//! request has come through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio_rustls::TlsConnector;

use crate::network::Netns;

/// Pause before a request that failed is tried again.
/// A kubelet's default; nobody acts on it, what counts is how long there was no renewal.
const LEASE_SECONDS: u32 = 40;
const RETRY: Duration = Duration::from_millis(200);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// How a kubelet reaches the API server.
#[derive(Clone)]
pub struct ApiConnection {
    /// The node's network.
    pub netns: Netns,
    pub address: SocketAddr,
    /// Trusts the cluster's authority and shows the node's certificate.
    pub tls: Arc<rustls::ClientConfig>,
    /// Between two renewals of the node's Lease.
    pub renew_every: Duration,
    /// After this long without a renewal the control plane takes the node for lost (`--node-monitor-grace-period`).
    pub grace: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("connect to the API server at {address}: {detail}")]
    Connect { address: SocketAddr, detail: String },
    #[error("the API server did not answer within {0:?}")]
    Silent(Duration),
    #[error("the connection to the API server broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the API server answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error(transparent)]
    Request(#[from] http::Error),
}

pub(super) struct ApiLink {
    to: Option<ApiConnection>,
    node: String,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
    state: watch::Sender<LinkState>,
}

/// Whether the last request came through, and how often one did not after others had.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkState {
    pub(super) up: bool,
    pub(super) outages: u64,
}

impl ApiLink {
    /// Without a connection (tests of the kubelet alone) the API is always within reach.
    pub(super) fn new(node: &str, to: Option<ApiConnection>) -> Self {
        Self { to, node: node.to_owned(), connection: Mutex::new(None), state: watch::Sender::new(LinkState { up: true, outages: 0 }) }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state.borrow().up
    }

    /// Follows whether the last request came through.
    pub(super) fn changes(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Returns once a request has come through.
    pub(super) async fn confirm(&self) {
        while !self.comes_through().await {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Whether a request comes through within `bound`.
    pub(super) async fn answers_within(&self, bound: Duration) -> bool {
        tokio::time::timeout(bound, self.comes_through()).await.unwrap_or(false)
    }

    /// Any answer will do, a refusal too: it has crossed the link.
    async fn comes_through(&self) -> bool {
        matches!(self.ask(Method::GET, "/livez", None, "").await, Ok(()) | Err(LinkError::Refused { .. }))
    }

    /// Renews the node's Lease for ever, at the interval that was configured.
    pub(super) async fn keep_lease(&self, node_uid: &str) {
        let Some(to) = &self.to else { return std::future::pending().await };
        loop {
            let pause = match self.renew(node_uid).await {
                Ok(()) => to.renew_every,
                Err(error) => {
                    tracing::debug!(node = self.node, %error, "the node's lease was not renewed");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn renew(&self, node_uid: &str) -> Result<(), LinkError> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let path = format!("{LEASES}/{}", self.node);
        let renewal = json!({"spec": {"renewTime": now}});
        match self.ask(Method::PATCH, &path, Some(renewal), "application/merge-patch+json").await {
            Err(LinkError::Refused { status: StatusCode::NOT_FOUND, .. }) => {}
            outcome => return outcome,
        }
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": node_uid});
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.node, "namespace": "kube-node-lease", "ownerReferences": [owner]},
            "spec": {"holderIdentity": self.node, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
        });
        self.ask(Method::POST, LEASES, Some(lease), "application/json").await
    }

    /// One request and its answer, over the connection there is or a new one; what is told of it is told to everyone who
    /// follows the link.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>, content_type: &str) -> Result<(), LinkError> {
        let Some(to) = &self.to else { return Ok(()) };
        let bound = (to.grace / 3).clamp(Duration::from_millis(500), Duration::from_secs(5));
        let mut connection = self.connection.lock().await;
        let attempt = async {
            let mut sender = match connection.take() {
                Some(sender) if sender.is_ready() => sender,
                _ => connect(to).await?,
            };
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", to.address.to_string())
                .header("user-agent", "kubelet")
                .header("content-type", content_type)
                .body(Full::from(body.map(|body| body.to_string()).unwrap_or_default()))?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, LinkError>((sender, status, body))
        };
        let outcome = match tokio::time::timeout(bound, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LinkError::Silent(bound)),
        };
        let answered = outcome.is_ok();
        self.state.send_if_modified(|state| {
            state.outages += u64::from(state.up && !answered);
            std::mem::replace(&mut state.up, answered) != answered
        });
        let (sender, status, body) = outcome?;
        *connection = Some(sender);
        if status.is_success() {
            return Ok(());
        }
        Err(LinkError::Refused { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

async fn connect(to: &ApiConnection) -> Result<SendRequest<Full<Bytes>>, LinkError> {
    let failed = |error: std::io::Error| LinkError::Connect { address: to.address, detail: error.to_string() };
    let stream = to.netns.tcp_connect(to.address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let name = ServerName::IpAddress(to.address.ip().into());
    let stream = TlsConnector::from(to.tls.clone()).connect(name, stream).await.map_err(failed)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a kubelet's connection to the API server ended");
        }
    });
    Ok(sender)
}
