//! Envoy's admin interface.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

const DEADLINE: Duration = Duration::from_secs(5);

/// The admin interface of an Envoy on this machine (or in this pod).
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    /// File that Envoy writes its admin address to (`--admin-address-path`).
    address_file: PathBuf,
}

impl Admin {
    pub fn new(address_file: PathBuf) -> Self {
        Self { address_file }
    }

    pub fn address_file(&self) -> &Path {
        &self.address_file
    }

    pub async fn get(&self, path: &str) -> Result<String, String> {
        self.request(Method::GET, path).await
    }

    pub async fn post(&self, path: &str) -> Result<String, String> {
        self.request(Method::POST, path).await
    }

    /// Statistics whose names match a regular expression. Text values (`version_text`) come without their quotes.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, String>, String> {
        let text = self.get(&format!("/stats?filter={filter}")).await?;
        Ok(text
            .lines()
            .filter_map(|line| line.rsplit_once(": "))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
            .collect())
    }

    async fn request(&self, method: Method, path: &str) -> Result<String, String> {
        let request = self.request_unbounded(method, path);
        timeout(DEADLINE, request).await.unwrap_or_else(|_| Err(format!("Envoy's admin interface did not answer {path} in {DEADLINE:?}")))
    }

    async fn request_unbounded(&self, method: Method, path: &str) -> Result<String, String> {
        let failed = |error: &dyn std::fmt::Display| format!("Envoy's admin interface, {path}: {error}");
        let text = std::fs::read_to_string(&self.address_file).map_err(|error| failed(&error))?;
        let address: SocketAddr = text.trim().parse().map_err(|error| failed(&error))?;
        let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "admin").body(Empty::new());
        let response = sender.send_request(request.map_err(|error| failed(&error))?).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
        connection.abort();
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() { Ok(text) } else { Err(failed(&format!("{status} {text}"))) }
    }
}
