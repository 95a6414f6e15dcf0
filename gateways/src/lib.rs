//! Real gateways: find or fetch the binary, turn settings into its own configuration, run it as an ingress controller, read its logs.
//!
//! One folder a gateway, with all that is its own (see `adapter.rs`); what they share is the vocabulary of [`Settings`], the pure [`model`] of
//! what is to be routed where, and the [`agent`] that follows the Kubernetes API.

mod adapter;
pub mod agent;
mod configuration;
pub mod fetch;
mod kind;
mod log;
mod manifests;
pub mod model;
pub mod settings;

/// Declares the folder of each gateway and lists the gateways in the order in which reports have them.
macro_rules! gateways {
    ($($folder:ident::$adapter:ident,)*) => {
        $(pub mod $folder;)*

        impl GatewayKind {
            /// Every gateway, in the order in which reports list them.
            pub const ALL: &'static [Self] = &[$(Self::of(&$folder::$adapter)),*];
        }
    };
}

// The registry: one line a gateway.
gateways! {
    nginx::Nginx,
    envoy::Envoy,
    haproxy::Haproxy,
    traefik::Traefik,
    ingress_nginx::IngressNginx,
}

pub use envoy::sidecar;
pub use fetch::{FetchError, GatewayBuild, Origin, Progress};
pub use kind::{GatewayKind, UnknownGateway};
pub use log::{AGENT_PREFIX, FieldValue, Fields, Form, Key, LineKind, LogLine, LogRecord, ReadLine, log_keys, read_log};
pub use manifests::{
    GATEWAY_NAMESPACE, GatewayInstall, HEALTH_PORT, INGRESS_CLASS, NodePorts, SETTINGS_CONFIG_MAP, SETTINGS_KEY, manifests,
};
pub use settings::{EffectiveSettings, Settings, SettingsError};
