//! The application's own call to another service, and how its failure becomes the application's own 502, 503 or 504.

use std::io;

use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::config::Upstream;

/// Where a call goes.
#[derive(Debug)]
pub(crate) struct Target {
    host: String,
    port: u16,
    path: String,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Target, String> {
        let uri: Uri = url.parse().map_err(|error| format!("`{url}` is not a URL: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("`{url}` does not begin with `http://`"));
        }
        let host = uri.host().ok_or_else(|| format!("`{url}` names no host"))?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Ok(Target { host: host.to_owned(), port: uri.port_u16().unwrap_or(80), path: path.to_owned() })
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{0}")]
    Target(String),
    #[error("cannot resolve {host}: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("connecting to {address} timed out")]
    ConnectTimeout { address: String },
    #[error("{0}")]
    Http(String),
    #[error("no response within the timeout")]
    Timeout,
    #[error("the upstream answered {0}")]
    Status(StatusCode),
}

impl CallError {
    /// The application's answer: 504 where it waited in vain, the upstream's own 502, 503 or 504, otherwise 502.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            CallError::ConnectTimeout { .. } | CallError::Timeout => StatusCode::GATEWAY_TIMEOUT,
            CallError::Status(status) if matches!(status.as_u16(), 502..=504) => *status,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

/// Makes one GET request over a new connection. Answers below 500 are successes.
pub(crate) async fn call(upstream: &Upstream, request_id: Option<&HeaderValue>) -> Result<u16, CallError> {
    timeout(upstream.timeout, attempt(upstream, request_id)).await.map_err(|_| CallError::Timeout)?
}

async fn attempt(upstream: &Upstream, request_id: Option<&HeaderValue>) -> Result<u16, CallError> {
    let Target { host, port, path } = Target::parse(&upstream.url).map_err(CallError::Target)?;
    let address = format!("{host}:{port}");
    let connect = async {
        let source = |source| CallError::Resolve { host: host.clone(), source };
        let addresses: Vec<_> = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await.map_err(source)?.collect();
        TcpStream::connect(&addresses[..]).await.map_err(|source| CallError::Connect { address: address.clone(), source })
    };
    let stream = timeout(upstream.connect_timeout, connect).await.map_err(|_| CallError::ConnectTimeout { address: address.clone() })??;
    let http = |error: hyper::Error| CallError::Http(with_cause(&error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let driver = tokio::spawn(connection);
    let _guard = tokio_util::task::AbortOnDropHandle::new(driver);
    let mut request = Request::get(path).header(header::HOST, &address).header(header::CONNECTION, "close");
    if let Some(id) = request_id {
        request = request.header("x-request-id", id);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| CallError::Http(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    // A response is whole or it is a failure.
    response.into_body().collect().await.map_err(http)?;
    if status.is_server_error() { Err(CallError::Status(status)) } else { Ok(status.as_u16()) }
}

/// hyper's own message leaves the operating system's out.
fn with_cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("http://stock", "stock", 80, "/")]
    #[case("http://stock.shop.svc:8080/items?id=1", "stock.shop.svc", 8080, "/items?id=1")]
    fn urls_are_taken_apart(#[case] url: &str, #[case] host: &str, #[case] port: u16, #[case] path: &str) {
        let target = Target::parse(url).unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), (host, port, path));
    }

    #[rstest]
    #[case("https://stock")]
    #[case("stock:80")]
    #[case("/items")]
    fn other_urls_are_refused(#[case] url: &str) {
        assert!(Target::parse(url).is_err());
    }
}
