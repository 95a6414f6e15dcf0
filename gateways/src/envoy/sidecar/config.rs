//! The sidecar's Envoy configuration: connections go on to where they were meant to go.

use serde_json::{Value, json};

use super::super::{
    access_log_config,
    bootstrap::{file_source, loopback, socket_address},
    resources::response,
    seconds,
};
use super::{SERVER, SidecarArgs};

pub(super) const LDS: &str = "lds.json";
const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";
/// SOL_SOCKET and SO_MARK of Linux' asm-generic/socket.h, as on x86-64 and arm64.
const SOL_SOCKET: u32 = 1;
const SO_MARK: u32 = 36;

/// Admin, clusters, and where listeners will come from.
pub(super) fn bootstrap(arguments: &SidecarArgs) -> String {
    let bootstrap = json!({
        "node": { "id": "sidecar", "cluster": "sidecar" },
        "admin": { "address": loopback(arguments.admin_port) },
        "dynamic_resources": { "lds_config": file_source(&arguments.state.join(LDS)) },
        "static_resources": { "clusters": [
            original_destination("inbound", arguments),
            original_destination("outbound", arguments),
            // Istio's BlackHoleCluster: connections made to the sidecar's own ports would run in circles
            { "name": "black-hole", "type": "STATIC", "connect_timeout": "1s" },
        ] },
    });
    format!("{bootstrap:#}\n")
}

fn original_destination(name: &str, arguments: &SidecarArgs) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": seconds(arguments.connect_timeout),
    });
    if arguments.mark != 0 {
        cluster["upstream_bind_config"] = json!({
            "source_address": { "address": "0.0.0.0", "port_value": 0 },
            "socket_options": [{
                "description": "tells the sidecar's own connections from the application's",
                "level": SOL_SOCKET, "name": SO_MARK, "int_value": arguments.mark, "state": "STATE_PREBIND",
            }],
        });
    }
    cluster
}

/// The two listeners, as the control plane sends them.
pub(super) fn listeners(arguments: &SidecarArgs) -> String {
    let inbound = json!({
        "name": "inbound",
        "traffic_direction": "INBOUND",
        "address": socket_address("0.0.0.0", arguments.inbound_port),
        "listener_filters": [original_dst_filter()],
        "filter_chains": [black_hole(arguments.inbound_port), { "filters": [inbound_http()] }],
    });
    let outbound = json!({
        "name": "outbound",
        "traffic_direction": "OUTBOUND",
        "address": socket_address("0.0.0.0", arguments.outbound_port),
        "listener_filters": [original_dst_filter()],
        "filter_chains": [black_hole(arguments.outbound_port), { "filters": [tcp_proxy("outbound")] }],
    });
    response("listener.v3.Listener", [inbound, outbound])
}

/// What there is before the control plane has sent anything.
pub(super) fn no_listeners() -> String {
    response("listener.v3.Listener", [])
}

/// Asks the kernel for the destination from before the redirect (SO_ORIGINAL_DST).
fn original_dst_filter() -> Value {
    json!({
        "name": "envoy.filters.listener.original_dst",
        "typed_config": { "@type": format!("{EXTENSIONS}.filters.listener.original_dst.v3.OriginalDst") },
    })
}

fn black_hole(port: u16) -> Value {
    json!({ "filter_chain_match": { "destination_port": port }, "filters": [tcp_proxy("black-hole")] })
}

fn tcp_proxy(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": format!("{EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": cluster,
            "cluster": cluster,
            "access_log": [access_log_config()],
        },
    })
}

/// As Istio's inbound side: no timeout and no retries of its own, the application's `server` header stays, the sidecar's own answers
/// say `istio-envoy`.
fn inbound_http() -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "inbound",
            "codec_type": "AUTO",
            "server_name": SERVER,
            "server_header_transformation": "PASS_THROUGH",
            "access_log": [access_log_config()],
            "preserve_external_request_id": true,
            "use_remote_address": false,
            "request_id_extension": {
                "typed_config": { "@type": format!("{EXTENSIONS}.request_id.uuid.v3.UuidRequestIdConfig"), "pack_trace_reason": false },
            },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": format!("{EXTENSIONS}.filters.http.router.v3.Router") },
            }],
            "route_config": {
                "name": "inbound",
                "virtual_hosts": [{
                    "name": "inbound",
                    "domains": ["*"],
                    "routes": [{ "name": "inbound", "match": { "prefix": "/" }, "route": { "cluster": "inbound", "timeout": "0s" } }],
                }],
            },
        },
    })
}
