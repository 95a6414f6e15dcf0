//! A small Kubernetes cluster inside one process tree: an honest API server with controllers in memory, whose pods are
//! real processes in real network namespaces. No root, no Docker; nothing outlives its first process.
//!
//! * [`store`] holds the objects, [`api`] serves them over HTTPS as kube-apiserver would;
//! * [`controllers`] and [`kubelet`] turn desired state into observed state, [`dns`] answers for it;
//! * [`runtime`] starts containers as processes in namespaces, [`network`] joins and filters them;
//! * [`cluster`] starts, finds and stops a whole cluster from outside; its first process is put together in `init`.

pub mod api;
pub mod cluster;
pub mod controllers;
pub mod dns;
mod handover;
mod hostport;
mod init;
pub mod kubelet;
pub mod link_agent;
pub mod network;
pub mod runtime;
pub mod store;

pub use init::run_if_reexecuted;
