//! `/healthz` for the pod's readiness probe: 200 once the first configuration is served, 503 before that and while draining.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

/// Serves until dropped.
#[derive(Debug)]
pub(crate) struct Health {
    ready: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl Health {
    /// Listens on all addresses of the pod; port 0 takes any.
    pub async fn serve(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?;
        let ready = Arc::new(AtomicBool::new(false));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, Arc::clone(&ready)));
        Ok(Self { ready, _task: task })
    }

    pub fn set(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }
}

async fn accept(listener: TcpListener, ready: Arc<AtomicBool>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let ready = Arc::clone(&ready);
        connections.spawn(async move {
            let service = service_fn(move |_: Request<Incoming>| {
                let (status, text) =
                    if ready.load(Ordering::Acquire) { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not yet\n") };
                async move {
                    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
                    *response.status_mut() = status;
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            // A prober that goes away is no concern of ours.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
