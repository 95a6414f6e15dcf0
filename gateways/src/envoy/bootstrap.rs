//! The one file that Envoy is started with: who it is, where its admin interface and its dynamic configuration are.

use std::path::Path;

use serde_json::{Value, json};

/// Resources by file: a source that Envoy reads again whenever a file is renamed into its place (config/core/v3/config_source.proto,
/// `path_config_source`).
pub(crate) fn file_source(path: &Path) -> Value {
    json!({ "path_config_source": { "path": path }, "resource_api_version": "V3", "initial_fetch_timeout": "0s" })
}

/// The gateway's bootstrap. Admin on the pod's loopback, as anybody there may shut Envoy down.
pub(super) fn bootstrap(state: &Path, admin_port: u16) -> Value {
    json!({
        "node": { "id": "gateway", "cluster": "gateway" },
        "admin": { "address": loopback(admin_port) },
        "dynamic_resources": {
            "cds_config": file_source(&state.join(super::resources::CDS)),
            "lds_config": file_source(&state.join(super::resources::LDS)),
        },
    })
}

pub(crate) fn loopback(port: u16) -> Value {
    socket_address("127.0.0.1", port)
}

pub(crate) fn socket_address(address: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": address, "port_value": port } })
}
