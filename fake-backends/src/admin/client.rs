//! The client of the admin port, for `backend journal` and `backend set` inside of the container.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Error;

/// Sends one request; an answer that is no success becomes an error with the server's reason.
pub(crate) async fn send(address: SocketAddr, method: Method, path: &str, body: Vec<u8>) -> Result<Incoming, Error> {
    let failed = |reason: String| Error::Admin { address, reason };
    let stream = TcpStream::connect(address).await.map_err(|error| failed(error.to_string()))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    let body = collect(address, response.into_body()).await?;
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let reason =
        value.get("error").and_then(|error| error.as_str()).map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned);
    Err(Error::Refused(reason))
}

pub(crate) async fn collect(address: SocketAddr, body: Incoming) -> Result<Bytes, Error> {
    Ok(body.collect().await.map_err(|error| Error::Admin { address, reason: error.to_string() })?.to_bytes())
}
