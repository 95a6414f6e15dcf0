//! What can go wrong in a backend, said so that the reader knows what to change.

use std::{io, net::SocketAddr, path::PathBuf};

/// Every failure that a backend or its client commands report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings file could not be read.
    #[error("cannot read the settings file {path}: {source}")]
    ReadConfig { path: PathBuf, source: io::Error },
    /// The settings do not parse; the text holds line, column and a snippet.
    #[error("the settings in {origin} are not valid:\n{message}")]
    ParseConfig { origin: String, message: String },
    /// Settings that parse but contradict themselves. One line a mistake.
    #[error("the settings contradict themselves:\n  {}", mistakes.join("\n  "))]
    InvalidConfig { mistakes: Vec<String> },
    /// A change (`--set`, `backend set`, PATCH /config) that does not fit the settings.
    #[error("cannot change `{path}`: {reason}")]
    Change { path: String, reason: String },
    /// A change to something that only a restart can change.
    #[error("`{path}` is read once at start; restart the backend to change it")]
    NeedsRestart { path: &'static str },
    /// A listening socket could not be opened.
    #[error("cannot listen on {address} ({role}): {source}; is another process using the port?")]
    Listen { role: &'static str, address: SocketAddr, source: io::Error },
    /// The accept queue of a listener could not be filled.
    #[error("cannot fill the accept queue of {address}: {source}")]
    FillBacklog { address: SocketAddr, source: io::Error },
    /// Certificates could not be made.
    #[error("cannot make the {what}: {source}")]
    Certificate { what: &'static str, source: rcgen::Error },
    /// A key file could not be read.
    #[error("cannot read the certificate authority's key {path}: {source}")]
    ReadKey { path: PathBuf, source: io::Error },
    /// rustls refused the certificate or key.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A signal handler could not be installed.
    #[error("cannot install a handler for {signal}: {source}")]
    Signal { signal: &'static str, source: io::Error },
    /// The admin port of a running backend could not be used.
    #[error("cannot reach the backend's admin port at {address}: {reason}; is the backend running, and is `admin.listen` the same?")]
    Admin { address: SocketAddr, reason: String },
    /// The admin port refused a request.
    #[error("the backend refused the change: {0}")]
    Refused(String),
    /// Standard output could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}
