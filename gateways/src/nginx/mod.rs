//! nginx as `ingress-nginx` runs it: nginx.conf from the model, graceful reloads, its access and error log.

mod access_log;
mod adapter;
mod annotations;
mod config;
#[cfg(test)]
mod config_tests;
mod defaults;
mod error_log;
#[cfg(test)]
mod live_tests;
mod log;
mod process;

pub use access_log::{LOG_FORMAT, NginxAccess, UpstreamAttempt};
pub(crate) use adapter::Nginx;
pub use config::{Layout, render};
pub use error_log::{Errno, NginxError, NginxErrorKind, Severity};

pub(crate) const KIND: crate::GatewayKind = crate::GatewayKind::of(&Nginx);
