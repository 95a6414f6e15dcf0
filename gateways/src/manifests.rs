//! The Kubernetes objects that put a gateway into a cluster, embedded or not.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::GatewayKind;

/// Namespace of everything that belongs to the gateway.
pub const GATEWAY_NAMESPACE: &str = "gateway";
/// ConfigMap (in [`GATEWAY_NAMESPACE`]) with the gateway's settings.
pub const SETTINGS_CONFIG_MAP: &str = "gateway-settings";
/// Key of the YAML in [`SETTINGS_CONFIG_MAP`].
pub const SETTINGS_KEY: &str = "settings.yaml";
/// IngressClass that Ingresses name; it is also the cluster's default class.
pub const INGRESS_CLASS: &str = "gateway";

/// How a gateway is put into a cluster.
#[derive(Debug, Clone)]
pub struct GatewayInstall {
    /// Image of the container, e.g. from [`crate::GatewayBuild::image`].
    pub image: String,
    /// Arguments for `gateway-agent` behind `--gateway`, e.g. from [`crate::GatewayBuild::agent_arguments`].
    pub agent_arguments: Vec<String>,
    /// YAML of [`crate::Settings`].
    pub settings: String,
    pub replicas: u32,
    pub node_selector: BTreeMap<String, String>,
}

/// All objects, in the order in which they are to be applied.
pub fn manifests(kind: GatewayKind, install: &GatewayInstall) -> Vec<Value> {
    let _ = (kind, install);
    Vec::new()
}
