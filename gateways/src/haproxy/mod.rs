//! HAProxy as HAProxy Ingress (jcmoraisjr/haproxy-ingress) runs it: haproxy.cfg from the model, endpoints over the
//! runtime API, hitless reloads for all else, its HTTP log.

mod access_log;
mod adapter;
mod annotations;
mod config;
#[cfg(test)]
mod config_tests;
mod defaults;
#[cfg(test)]
mod live_tests;
mod log;
mod log_relay;
mod process;
mod servers;

pub use access_log::{HaproxyAccess, LOG_FORMAT};
pub(crate) use adapter::Haproxy;
pub use config::{Layout, render};

pub(crate) const KIND: crate::GatewayKind = crate::GatewayKind::of(&Haproxy);
