//! A whole cluster seen from outside: start one, find those that run, stop them.
//!
//! A cluster ("lab") is one process tree; its first process is this same executable, started again in namespaces of its
//! own. So `main` of every executable that starts clusters calls [`crate::run_if_reexecuted`] before anything else.

mod config;
mod error;
mod launch;
mod state_dir;

pub use config::{ClusterConfig, Lifetime, NodeMonitor};
pub use error::{Barrier, ClusterError};
pub use launch::{Cluster, list_labs};
pub use state_dir::{LabRecord, default_state_dir};

pub(crate) use launch::{LaunchMessage, Request};
pub(crate) use state_dir::StateDir;
