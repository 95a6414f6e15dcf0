//! One way to every cluster: the `kube` client with a kubeconfig, and what the lab does with it.
//!
//! * [`client`] connects and finds out which kinds are served, [`objects`] reads and changes objects of any kind;
//! * [`exec`] runs a command in a pod, [`logs`] reads what containers wrote;
//! * [`rollout`] says from objects alone whether they have settled.

pub mod client;
pub mod exec;
pub mod logs;
pub mod objects;
pub mod rollout;

pub use client::{Kubernetes, KubernetesError, MARK};
pub use exec::{ExecOutput, ExecTarget, Running};
pub use objects::ObjectRef;
