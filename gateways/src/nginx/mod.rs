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
// The same controller, without and with its own program: one reader of the log, one of annotations, one set of defaults.
pub(crate) use annotations::{of_ingress as annotations_of_ingress, redirects_to_https};
pub(crate) use config::reasons;
pub use config::{Layout, render};
pub(crate) use defaults::defaults;
pub use error_log::{Errno, NginxError, NginxErrorKind, Severity};
pub(crate) use log::{DEFAULT_BACKEND, VOCABULARY, mark, mark_of_seen, read as read_log};

pub(crate) const KIND: crate::GatewayKind = crate::GatewayKind::of(&Nginx);
