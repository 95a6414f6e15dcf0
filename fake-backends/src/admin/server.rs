//! The admin port's listener.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, time::sleep};

use super::routes::route;
use crate::{Error, backend::Shared};

/// Opens the admin port and serves it until the backend is gone.
pub(crate) fn start(shared: &Arc<Shared>, address: SocketAddr) -> Result<SocketAddr, Error> {
    let failed = |source| Error::Listen { role: "admin port", address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let shared = shared.clone();
    tokio::spawn(async move {
        let gone = shared.gone.clone();
        gone.run_until_cancelled(accept(shared, listener)).await
    });
    Ok(bound)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let gone = shared.gone.clone();
            let service = service_fn(move |request| route(shared.clone(), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            gone.run_until_cancelled_owned(connection).await
        });
    }
}
