//! nginx as `ingress-nginx` runs it: nginx.conf from the model, graceful reloads, its access and error log.

mod access_log;
mod config;
#[cfg(test)]
mod config_tests;
mod error_log;
mod process;

pub use access_log::{LOG_FORMAT, NginxAccess, UpstreamAttempt};
pub use config::{Layout, render};
pub use error_log::{Errno, NginxError, NginxErrorKind, Severity};
pub(crate) use process::NginxGateway;
