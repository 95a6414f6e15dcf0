//! Real Kubernetes: clusters that `kind` makes of containers, with Docker or Podman.
//!
//! * [`error`] says what went wrong and what to do, [`command`] runs programs with a bound, [`tools`] finds kind, the engine and the
//!   node image, [`cluster_file`] is what kind is told, [`cluster`] makes and removes a cluster, [`links`] gives its nodes links with latency, [`ready`] waits for it and empties
//!   it between runs, [`provider`] puts these together.

pub mod cluster;
pub mod cluster_file;
pub mod command;
pub mod error;
pub mod links;
pub mod provider;
pub mod ready;
pub mod tools;

pub use cluster::{PREFIX, remove, sweep};
pub use error::KindError;
pub use provider::{Kind, KindOptions, load_into};
