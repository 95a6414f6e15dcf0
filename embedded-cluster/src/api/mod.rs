//! The API server: the store over HTTPS, as kube-apiserver serves it.
//!
//! A request's way: [`server`] (TLS) → [`router`] (who, what) → [`read`], [`watch`], [`write`], [`subresources`] or
//! [`streams`]. Which resources there are is one table, [`kinds`]; what is refused is a [`status`].

mod admission;
mod authorization;
mod body;
mod certificates;
mod convert;
mod custom;
mod discovery;
mod eviction;
mod fields;
mod identity;
mod kinds;
mod metrics;
mod openapi;
mod patch;
mod protobuf;
mod query;
mod read;
mod respond;
mod route;
mod router;
mod selector;
mod server;
mod status;
mod streams;
mod subresources;
mod table;
mod validation;
mod watch;
mod write;

pub use authorization::create_default_roles;
pub use certificates::{CertificateError, Certificates, ClientCertificate};
pub use identity::{Identity, TokenIssuer};
pub use metrics::Metrics;
pub use server::{ApiState, serve};

/// All built-in resources that are served.
pub fn served_resources() -> impl Iterator<Item = crate::store::Resource> {
    kinds::builtins().iter().map(|kind| kind.resource.clone())
}
