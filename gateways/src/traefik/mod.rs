//! Traefik with its own Kubernetes provider: it follows the cluster's API by itself, as it does anywhere.
//!
//! The agent writes no configuration for it. It starts Traefik with static arguments made from the settings (the configuration that
//! Traefik cannot change while it runs), and answers `status` by comparing what Traefik's own API says that it routes with the objects.

mod access_log;
mod adapter;
mod annotations;
mod arguments;
mod defaults;
mod log;
mod process;
mod routing;

pub use access_log::{TraefikAccess, TraefikMessage};
pub(crate) use adapter::Traefik;
pub use arguments::Layout;

pub(crate) const KIND: crate::GatewayKind = crate::GatewayKind::of(&Traefik);
