//! Envoy as Contour configures it: a static bootstrap, file-based xDS, its access log.

mod access_log;
mod flags;
mod process;

pub use access_log::EnvoyAccess;
pub use flags::ResponseFlag;
pub(crate) use process::EnvoyGateway;
