//! nginx as `ingress-nginx` runs it: nginx.conf from the model, graceful reloads, its access and error log.

mod access_log;
mod error_log;

pub use access_log::{NginxAccess, UpstreamAttempt};
pub use error_log::{Errno, NginxError, NginxErrorKind, Severity};
