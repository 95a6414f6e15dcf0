//! Backends and settings to Envoy clusters, following Contour's internal/envoy/v3/cluster.go.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{KIND, bootstrap::file_source, bootstrap::socket_address, resources::eds_file};
use crate::{
    EffectiveSettings,
    configuration::digest,
    model::{Backend, Route},
    settings::BackendProtocol,
};

const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Envoy's own limit for response headers, in KiB.
const DEFAULT_HEADERS_KB: u64 = 60;
/// `outlier_detection.interval`, Envoy's own.
const OUTLIER_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// A duration in protobuf's JSON: seconds with a fraction.
pub(crate) fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// The cluster for a backend with the settings of a route. Its name is like Contour's, `<namespace>/<service>/<port>/<hash>`, the hash
/// being over what is set for it, so that two Ingresses with different settings have two clusters.
pub(super) fn cluster(state: &Path, backend: &Backend, route: &Route) -> (String, Value) {
    let settings = &route.settings;
    let mut cluster = json!({
        "connect_timeout": seconds(settings.connect_timeout),
        "type": "EDS",
        "lb_policy": "ROUND_ROBIN",
        // Contour: no panic mode, so a cluster without healthy hosts answers 503 UH
        "common_lb_config": { "healthy_panic_threshold": { "value": 0 } },
        "typed_extension_protocol_options": { HTTP_PROTOCOL_OPTIONS: protocol_options(settings) },
    });
    if let Some(socket) = transport_socket(route) {
        cluster["transport_socket"] = socket;
    }
    if settings.passive_check_failures > 0 {
        let ejection = settings.passive_check_ejection;
        cluster["outlier_detection"] = json!({
            "consecutive_gateway_failure": settings.passive_check_failures,
            // Off unless asked for
            "enforcing_consecutive_gateway_failure": 100,
            "base_ejection_time": seconds(ejection),
            // Who comes back is looked at this often
            "interval": seconds(ejection.min(OUTLIER_INTERVAL)),
            // Envoy's own is 10 %, of which one server may always go
            "max_ejection_percent": 100,
        });
    }
    if let Some(snippet) = settings.snippets.object(KIND, "cluster") {
        merge(&mut cluster, snippet);
    }
    if let Some(external) = &backend.external {
        // Contour: a logical cluster whose addresses Envoy looks up by itself, every so often
        cluster["type"] = json!("STRICT_DNS");
        cluster["dns_refresh_rate"] = json!(seconds(settings.dns_valid));
        cluster["dns_lookup_family"] = json!("AUTO");
        if !settings.dns_timeout.is_zero() {
            // c-ares takes whole seconds; one try, so that this is how long a lookup may take
            cluster["typed_dns_resolver_config"] = json!({
                "name": "envoy.network.dns_resolver.cares",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                    "query_timeout_seconds": settings.dns_timeout.as_millis().div_ceil(1000),
                    "query_tries": 1,
                },
            });
        }
        cluster["load_assignment"] = json!({ "cluster_name": "external", "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": socket_address(&external.name, external.port) } }
        ] }] });
    }
    let hash = digest(&cluster.to_string());
    let name = format!("{}/{}/{}/{}", backend.namespace, backend.service, backend.port, &hash[..10]);
    cluster["name"] = json!(name);
    if backend.external.is_some() {
        cluster["load_assignment"]["cluster_name"] = json!(name);
    } else {
        cluster["eds_cluster_config"] = json!({ "eds_config": file_source(&state.join(eds_file(&name))) });
    }
    (name, cluster)
}

/// The endpoints of a cluster, for its own EDS file.
pub(super) fn load_assignment(cluster: &str, backend: &Backend) -> Value {
    let endpoints: Vec<Value> = backend
        .endpoints
        .iter()
        .map(|endpoint| json!({ "endpoint": { "address": socket_address(&endpoint.ip().to_string(), endpoint.port()) } }))
        .collect();
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": endpoints }] })
}

fn protocol_options(settings: &EffectiveSettings) -> Value {
    let mut common = Map::new();
    common.insert("idle_timeout".to_owned(), json!(seconds(settings.idle_timeout)));
    let requests = if settings.keepalive_connections == 0 { 1 } else { settings.keepalive_requests };
    if requests > 0 {
        common.insert("max_requests_per_connection".to_owned(), json!(requests));
    }
    if !settings.keepalive_time.is_zero() {
        common.insert("max_connection_duration".to_owned(), json!(seconds(settings.keepalive_time)));
    }
    let headers_kb = settings.response_header_buffer.div_ceil(1024).max(1);
    if headers_kb != DEFAULT_HEADERS_KB {
        common.insert("max_response_headers_kb".to_owned(), json!(headers_kb));
    }
    let explicit = match settings.backend_protocol {
        BackendProtocol::Http | BackendProtocol::Https => json!({ "http_protocol_options": {} }),
        BackendProtocol::Grpc | BackendProtocol::Grpcs | BackendProtocol::H2c => json!({ "http2_protocol_options": {} }),
    };
    json!({
        "@type": format!("type.googleapis.com/{HTTP_PROTOCOL_OPTIONS}"),
        "common_http_protocol_options": common,
        "explicit_http_config": explicit,
    })
}

fn transport_socket(route: &Route) -> Option<Value> {
    let settings = &route.settings;
    let alpn: &[&str] = match settings.backend_protocol {
        BackendProtocol::Https => &[],
        BackendProtocol::Grpcs => &["h2"],
        BackendProtocol::Http | BackendProtocol::Grpc | BackendProtocol::H2c => return None,
    };
    let mut common = json!({ "alpn_protocols": alpn });
    if settings.tls_verify {
        let authority = match &route.ca {
            Some(pem) => json!({ "inline_string": pem }),
            None => json!({ "filename": "/etc/ssl/certs/ca-certificates.crt" }),
        };
        common["validation_context"] = json!({ "trusted_ca": authority });
        if let Some(name) = &settings.tls_name {
            common["validation_context"]["match_typed_subject_alt_names"] = json!([{ "san_type": "DNS", "matcher": { "exact": name } }]);
        }
    }
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": common,
    });
    if let Some(name) = &settings.tls_name {
        context["sni"] = json!(name);
    }
    Some(json!({ "name": "envoy.transport_sockets.tls", "typed_config": context }))
}

/// Merges a raw snippet: objects key by key, everything else is replaced.
pub(super) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
