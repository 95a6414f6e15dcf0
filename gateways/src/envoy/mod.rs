//! Envoy as Contour configures it: a static bootstrap, file-based xDS, its access log.

mod access_log;
mod adapter;
pub(crate) mod admin;
mod annotations;
pub(crate) mod bootstrap;
mod cluster;
mod defaults;
mod flags;
mod listener;
#[cfg(test)]
mod live_tests;
mod log;
mod process;
pub(crate) mod resources;
#[cfg(test)]
mod resources_tests;
pub mod sidecar;

pub use access_log::EnvoyAccess;
pub(crate) use access_log::access_log_config;
pub(crate) use adapter::Envoy;
pub(crate) use admin::Admin;
pub(crate) use cluster::seconds;
pub use flags::ResponseFlag;
pub(crate) use process::arguments;
pub use resources::{Layout, render};

pub(crate) const KIND: crate::GatewayKind = crate::GatewayKind::of(&Envoy);
