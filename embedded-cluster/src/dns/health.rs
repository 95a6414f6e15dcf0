//! `/health` and `/ready`, for the pod's probes.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::FOLLOWED;

/// Answers `path` with 200; with `synced`, only once everything has been listed.
pub(super) async fn listen(
    address: SocketAddr,
    path: &'static str,
    synced: Option<watch::Receiver<usize>>,
) -> std::io::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(address).await?;
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let synced = synced.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let ready = synced.as_ref().is_none_or(|count| *count.borrow() >= FOLLOWED);
                let status = match request.uri().path() == path {
                    false => StatusCode::NOT_FOUND,
                    true if ready => StatusCode::OK,
                    true => StatusCode::SERVICE_UNAVAILABLE,
                };
                let mut response = Response::new(Full::new(Bytes::from(status.canonical_reason().unwrap_or_default())));
                *response.status_mut() = status;
                std::future::ready(Ok::<_, Infallible>(response))
            });
            tokio::spawn(async move {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }))
}
