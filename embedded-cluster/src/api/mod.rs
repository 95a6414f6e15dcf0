//! The API server: the store over HTTPS, as kube-apiserver serves it.

mod certificates;
mod identity;
mod router;
mod server;

pub use certificates::{CertificateError, Certificates, ClientCertificate};
pub use identity::{Identity, TokenIssuer};
pub use server::{ApiState, serve};
