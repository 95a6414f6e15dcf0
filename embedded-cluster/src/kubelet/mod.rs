//! The node agent: takes the pods bound to its node through their life on a container runtime, and reports it.

mod interface;

pub use interface::{AccessError, ContainerTarget, LogOptions, PodAccess};
