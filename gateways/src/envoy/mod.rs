//! Envoy as Contour configures it: a static bootstrap, file-based xDS, its access log.

mod access_log;
pub(crate) mod admin;
pub(crate) mod bootstrap;
mod cluster;
mod flags;
mod listener;
mod process;
pub(crate) mod resources;
#[cfg(test)]
mod resources_tests;

pub use access_log::EnvoyAccess;
pub(crate) use access_log::access_log_config;
pub(crate) use admin::Admin;
pub(crate) use cluster::seconds;
pub use flags::ResponseFlag;
pub(crate) use process::{EnvoyGateway, arguments};
pub use resources::{Layout, render};
