//! Real gateways: find or fetch the binary, turn settings into its own configuration, run it as an ingress controller, read its logs.
//!
//! One folder a gateway (`nginx`, `envoy`, `haproxy`, `traefik`); what they share is the vocabulary of [`Settings`], the pure [`model`] of what is to be
//! routed where, and the [`agent`] that follows the Kubernetes API.

pub mod agent;
pub mod envoy;
pub mod fetch;
pub mod haproxy;
mod kind;
mod log;
mod manifests;
pub mod model;
pub mod nginx;
pub mod settings;
pub mod sidecar;
pub mod traefik;

pub use fetch::{FetchError, GatewayBuild, Origin, Progress};
pub use kind::{GatewayKind, UnknownGateway};
pub use log::{AGENT_PREFIX, LogRecord, parse_line};
pub use manifests::{
    GATEWAY_NAMESPACE, GatewayInstall, HEALTH_PORT, INGRESS_CLASS, NodePorts, SETTINGS_CONFIG_MAP, SETTINGS_KEY, manifests,
};
pub use settings::{EffectiveSettings, Settings, SettingsError};
