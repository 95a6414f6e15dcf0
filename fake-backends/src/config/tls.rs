//! `tls:` - certificates made at start, and the handshake.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// TLS on the main port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Which certificate is presented.
    pub certificate: CertificateKind,
    /// DNS names and IP addresses in the certificate; the first is its common name.
    pub names: Vec<String>,
    /// Protocols offered by ALPN, in order, e.g. `[h2, http/1.1]`; empty: no ALPN.
    pub alpn: Vec<String>,
    /// Whether the handshake is ever answered.
    pub handshake: Handshake,
    /// What a client gets that speaks plain HTTP to this port.
    pub plain_http: PlainHttp,
    /// PEM private key (ECDSA P-256, PKCS #8) of the certificate authority, so that replicas share one; left out: a new one.
    /// Its certificate is at `GET /ca.pem` on the admin port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_key_file: Option<PathBuf>,
}

impl Default for Tls {
    fn default() -> Self {
        Tls {
            certificate: CertificateKind::Valid,
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            alpn: Vec::new(),
            handshake: Handshake::Complete,
            plain_http: PlainHttp::Close,
            ca_key_file: None,
        }
    }
}

/// Certificates that a backend can present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateKind {
    /// Signed by the authority, for `names`, within its dates.
    Valid,
    /// As `valid`, but its notAfter lies in the past.
    Expired,
    /// Signed by its own key: no path to any authority.
    SelfSigned,
    /// As `valid`, but for a name that nobody asks for.
    WrongName,
}

/// How far a TLS handshake gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handshake {
    /// It is completed.
    Complete,
    /// The ClientHello is read and never answered.
    Stalled,
}

/// What happens when the first byte of a connection is not a TLS record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlainHttp {
    /// A TLS alert, then close: what most TLS libraries do.
    Close,
    /// `400 Bad Request` in plain text, as nginx and Go's net/http do.
    BadRequest,
}
