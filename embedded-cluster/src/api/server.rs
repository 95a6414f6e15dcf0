//! Accepting connections: TLS, HTTP/1.1 and HTTP/2, one task a connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::ServiceAccount;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::certificates::Certificates;
use super::identity::{AUDIENCE, Identity, LIFETIME_SECONDS, TokenIssuer};
use super::metrics::Metrics;
use super::router;
use crate::kubelet::PodAccess;
use crate::store::{Resource, Store};

/// A client that connects and then neither shows who it is nor asks for anything is let go after this long.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long a connection may be idle, or a request's head take: longer than clients keep an idle connection (90 s in client-go as in
/// the kube crate), so that none is closed in the moment in which it is used again.
const IDLE_TIME: Duration = Duration::from_secs(120);
/// More connections than this wait in the listener's backlog.
const CONNECTIONS: usize = 2048;

/// What the API server serves, shared by all its connections.
pub struct ApiState {
    pub store: Store,
    pub access: Arc<dyn PodAccess>,
    pub certificates: Arc<Certificates>,
    pub tokens: Arc<TokenIssuer>,
    pub metrics: Metrics,
}

impl ApiState {
    /// Whom a token stands for; `None` when it is no token of this cluster, or its service account is gone.
    pub(super) fn bearer(&self, token: &str) -> Option<Identity> {
        let bearer = self.tokens.verify(token)?;
        let account = self.store.get(&Resource::of::<ServiceAccount>(), Some(&bearer.namespace), &bearer.name).ok()?;
        let uid = account["metadata"]["uid"].as_str().unwrap_or_default();
        let is_same = bearer.uid.is_empty() || bearer.uid == uid;
        is_same.then(|| Identity { uid: uid.to_owned(), ..Identity::service_account(&bearer.namespace, &bearer.name) })
    }

    /// A token that lets a pod act as its service account.
    pub fn issue_token(store: &Store, tokens: &TokenIssuer, namespace: &str, account: &str) -> String {
        let object = store.get(&Resource::of::<ServiceAccount>(), Some(namespace), account);
        let uid = object.ok().and_then(|object| object["metadata"]["uid"].as_str().map(str::to_owned)).unwrap_or_default();
        tokens.issue(namespace, account, &uid, LIFETIME_SECONDS, &[AUDIENCE.to_owned()])
    }
}

/// Serves the API on every listener until `stop` is cancelled; then open watches and streams are cut.
pub async fn serve(listeners: Vec<TcpListener>, state: Arc<ApiState>, stop: CancellationToken) {
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, state.clone(), stop.clone(), slots.clone()));
    }
    while accepting.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, state: Arc<ApiState>, stop: CancellationToken, slots: Arc<tokio::sync::Semaphore>) {
    let acceptor = TlsAcceptor::from(state.certificates.server_config());
    let mut connections = JoinSet::new();
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = slots.clone().acquire_owned() => match slot {
                Ok(slot) => slot,
                Err(_) => break,
            },
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (acceptor, state) = (acceptor.clone(), state.clone());
                    connections.spawn(async move {
                        connection(stream, acceptor, state).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, mostly: give those in use a moment to be closed.
                    tracing::warn!(%error, "the API server cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<ApiState>) {
    let _ = stream.set_nodelay(true);
    let tls = match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake with a client of the API failed");
            return;
        }
        Err(_) => return,
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity: Option<Identity> = certificate.and_then(|c| state.certificates.identity(c));
    // Clients connect ahead of what they will ask, and find such a connection in their pool as one that is used again.
    let spoke = Arc::new(AtomicBool::new(identity.is_some()));
    let heard = spoke.clone();
    let service = service_fn(move |request| {
        heard.store(true, Ordering::Relaxed);
        let (state, identity) = (state.clone(), identity.clone());
        async move { Ok::<_, Infallible>(router::respond(state, identity, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIME);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(250).keep_alive_interval(Duration::from_secs(30));
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(tls), service));
    let served = match tokio::time::timeout(HANDSHAKE_TIME, &mut serving).await {
        Ok(served) => served,
        Err(_) if spoke.load(Ordering::Relaxed) => serving.await,
        Err(_) => return,
    };
    if let Err(error) = served {
        tracing::debug!(error, "connection to the API ended");
    }
}
