//! The vocabulary of a backend's settings file, flags and admin port. One set of types for all three.

mod change;
mod grpc;
mod health;
mod process;
mod response;
mod server;
mod tls;
mod validate;
mod websocket;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use grpc::Grpc;
pub use health::{Health, Verdict};
pub use process::{Lifetime, Startup};
pub use response::{BodyPause, Delivery, Response, Route, Upstream};
pub use server::{Accept, Close, Protocol, Server, Shutdown};
pub use tls::{CertificateKind, Handshake, PlainHttp, Tls};
pub use websocket::WebSocket;

pub use crate::misbehaviour::latency::Latency;
use crate::{Error, admin::Admin};

/// Everything a backend is told. Every key may be left out; the empty file is a healthy HTTP server on port 8080.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The application's name, sent as `x-app` and in bodies.
    pub name: String,
    /// Listener, connections and shutdown.
    pub server: Server,
    /// TLS on the main port; left out: plain text. New connections follow a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Health endpoints.
    pub health: Health,
    /// How requests are answered where no route says otherwise. Read for each request.
    pub response: Response,
    /// Exceptions by path and method; the longest matching path wins, then the earlier entry.
    pub routes: Vec<Route>,
    /// When the process begins to listen and to be ready.
    pub startup: Startup,
    /// When the process ends by itself.
    pub lifetime: Lifetime,
    /// The port that reads and switches a running backend.
    pub admin: Admin,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: "app".to_owned(),
            server: Server::default(),
            tls: None,
            health: Health::default(),
            response: Response::default(),
            routes: Vec::new(),
            startup: Startup::default(),
            lifetime: Lifetime::default(),
            admin: Admin::default(),
        }
    }
}

impl Config {
    /// Reads settings from YAML text; `origin` names the text in errors. Unknown keys are refused.
    pub fn from_yaml(text: &str, origin: &str) -> Result<Config, Error> {
        // An empty document is null to YAML, and means "all defaults" to a person.
        let config = if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---") {
            Config::default()
        } else {
            serde_saphyr::from_str(text).map_err(|error| Error::ParseConfig { origin: origin.to_owned(), message: error.render() })?
        };
        config.validate()?;
        Ok(config)
    }

    /// Reads the settings file at `path`.
    pub fn from_file(path: &Path) -> Result<Config, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::ReadConfig { path: path.to_owned(), source })?;
        Config::from_yaml(&text, &path.display().to_string())
    }

    /// The behaviour for one request: the best matching route laid over the default.
    pub(crate) fn response_for(&self, method: &str, path: &str) -> Response {
        let mut best: Option<&Route> = None;
        for route in self.routes.iter().filter(|route| route.matches(method, path)) {
            if best.is_none_or(|best| route.path.len() > best.path.len()) {
                best = Some(route);
            }
        }
        match best {
            Some(route) => route.response.over(&self.response),
            None => self.response.clone(),
        }
    }
}
