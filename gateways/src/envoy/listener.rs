//! Hosts and routes to Envoy listeners and route configurations, following Contour's internal/envoy/v3/{listener,route}.go.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use super::{
    KIND, access_log_config,
    bootstrap::{file_source, socket_address},
    cluster::{merge, seconds},
    resources::RouteTable,
};
use crate::{
    EffectiveSettings,
    model::{Certificate, Host, HostName, Model, PathMatch, Route},
    settings::{RetryOn, pattern},
};

/// Envoy's own limit of a stream's silence.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";
const RBAC: &str = "envoy.filters.http.rbac";

/// The listener for plain HTTP.
pub(super) fn http_listener(model: &Model, state: &Path, port: u16) -> Value {
    json!({
        "name": "ingress_http",
        "address": socket_address("0.0.0.0", port),
        "filter_chains": [{ "filters": [connection_manager(model, state, RouteTable::Http)] }],
    })
}

/// The listener for TLS: one filter chain for each host with a certificate. A client that names another host is turned away.
pub(super) fn https_listener(model: &Model, state: &Path, port: u16) -> Option<Value> {
    let chains: Vec<Value> = model
        .hosts
        .iter()
        .filter_map(|host| Some((server_name(&host.name)?, host.certificate.as_ref()?)))
        .map(|(name, certificate)| {
            json!({
                "filter_chain_match": { "server_names": [name] },
                "filters": [connection_manager(model, state, RouteTable::Https)],
                "transport_socket": downstream_tls(certificate),
            })
        })
        .collect();
    (!chains.is_empty()).then(|| {
        json!({
            "name": "ingress_https",
            "address": socket_address("0.0.0.0", port),
            "listener_filters": [{
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": { "@type": format!("{EXTENSIONS}.filters.listener.tls_inspector.v3.TlsInspector") },
            }],
            "filter_chains": chains,
        })
    })
}

fn server_name(name: &HostName) -> Option<String> {
    match name {
        HostName::Exact(name) => Some(name.clone()),
        HostName::Wildcard(rest) => Some(format!("*.{rest}")),
        HostName::Any => None,
    }
}

fn downstream_tls(certificate: &Certificate) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_2" },
                "tls_certificates": [{
                    "certificate_chain": { "inline_string": certificate.chain },
                    "private_key": { "inline_string": certificate.key },
                }],
            },
        },
    })
}

fn connection_manager(model: &Model, state: &Path, table: RouteTable) -> Value {
    let mut manager = json!({
        "@type": format!("{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": table.name(),
        "codec_type": "AUTO",
        "rds": { "route_config_name": table.name(), "config_source": file_source(&state.join(table.file())) },
        // Contour's DefaultFilters(): without rules this one passes everything, routes bring their own
        "http_filters": [
            { "name": RBAC, "typed_config": { "@type": format!("{EXTENSIONS}.filters.http.rbac.v3.RBAC") } },
            {
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": format!("{EXTENSIONS}.filters.http.router.v3.Router") },
            },
        ],
        "access_log": [access_log_config()],
        "common_http_protocol_options": { "idle_timeout": seconds(model.global.client_idle_timeout) },
        "http_protocol_options": { "accept_http_10": true },
        "use_remote_address": true,
        "normalize_path": true,
        "merge_slashes": true,
        "strip_any_host_port": true,
        // Contour sets this; the trace reason, which Envoy may write into the id, is not wanted either
        "preserve_external_request_id": true,
        "request_id_extension": {
            "typed_config": { "@type": format!("{EXTENSIONS}.request_id.uuid.v3.UuidRequestIdConfig"), "pack_trace_reason": false },
        },
    });
    if let Some(snippet) = model.global.snippets.object(KIND, "connection-manager") {
        merge(&mut manager, snippet);
    }
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })
}

/// A route configuration. `cluster_of` names the cluster of a route; routes without one are left out, as Contour leaves out routes
/// whose Service or port it does not find.
pub(super) fn route_configuration(model: &Model, table: RouteTable, cluster_of: &dyn Fn(&Route) -> Option<String>) -> Value {
    let hosts: Vec<Value> = model
        .hosts
        .iter()
        .filter(|host| table == RouteTable::Http || host.certificate.is_some())
        .map(|host| virtual_host(host, table, cluster_of))
        .collect();
    json!({ "name": table.name(), "virtual_hosts": hosts, "ignore_port_in_host_matching": true })
}

fn virtual_host(host: &Host, table: RouteTable, cluster_of: &dyn Fn(&Route) -> Option<String>) -> Value {
    let name = server_name(&host.name).unwrap_or_else(|| "*".to_owned());
    let mut routes: Vec<&Route> = host.routes.iter().collect();
    // Envoy takes the first match: exact paths, then the longest prefixes. Element-wise before textual where both are as long.
    routes.sort_by_key(|route| (route.matching != PathMatch::Exact, std::cmp::Reverse(route.path.len()), route.matching));
    let routes: Vec<Value> =
        routes.into_iter().filter_map(|route| Some(self::route(&host.name, route, table, &cluster_of(route)?))).collect();
    json!({ "name": name, "domains": [name], "routes": routes })
}

fn route(host: &HostName, route: &Route, table: RouteTable, cluster: &str) -> Value {
    let mut matching = match route.matching {
        PathMatch::Exact => json!({ "path": route.path }),
        PathMatch::Prefix if route.path != "/" => json!({ "path_separated_prefix": route.path }),
        PathMatch::Prefix | PathMatch::TextPrefix => json!({ "prefix": route.path }),
    };
    if let HostName::Wildcard(rest) = host {
        // Envoy's wildcard stands for any number of labels, the Kubernetes API's for one (Contour: wildcardDomainHeaderMatch)
        let regex = format!("^[a-zA-Z0-9_-]+\\.{}(:[0-9]+)?$", rest.replace('.', "\\."));
        matching["headers"] = json!([{ "name": ":authority", "string_match": { "safe_regex": { "regex": regex } } }]);
    }
    if route.redirect_to_https && table == RouteTable::Http {
        return json!({ "name": route.ingress, "match": matching, "redirect": { "https_redirect": true } });
    }
    let settings = &route.settings;
    let mut action = json!({ "cluster": cluster, "timeout": seconds(settings.read_timeout) });
    // Contour, routeRoute() in internal/envoy/v3/route.go. Without it Envoy answers an upgrade with 403, `upgrade_failed`
    if route.upgrades {
        action["upgrade_configs"] = json!([{ "upgrade_type": "websocket" }]);
    }
    if settings.tunnel_timeout != STREAM_IDLE_TIMEOUT {
        action["idle_timeout"] = json!(seconds(settings.tunnel_timeout));
    }
    if let Some(policy) = retry_policy(settings) {
        action["retry_policy"] = policy;
    }
    if let Some(snippet) = settings.snippets.object(KIND, "route") {
        merge(&mut action, snippet);
    }
    if let Some(target) = &settings.rewrite_target {
        match target.as_str() {
            // Contour: with a prefix of / the slash behind the rule's path would be there twice
            "/" => action["regex_rewrite"] = json!({ "pattern": { "regex": format!("^{}/*", pattern(&route.path)) }, "substitution": "/" }),
            target => action["prefix_rewrite"] = json!(target),
        }
    }
    let mut entry = json!({ "name": route.ingress, "match": matching, "route": action });
    if !settings.allow_sources.is_empty() {
        entry["typed_per_filter_config"] = json!({ RBAC: allowed_sources(settings) });
    }
    entry
}

/// As Contour makes of a route's `ipAllowPolicy` (internal/envoy/v3/route.go).
fn allowed_sources(settings: &EffectiveSettings) -> Value {
    let principals: Vec<Value> = settings
        .allow_sources
        .iter()
        .map(|network| json!({ "remote_ip": { "address_prefix": network.address, "prefix_len": network.prefix } }))
        .collect();
    json!({
        "@type": format!("{EXTENSIONS}.filters.http.rbac.v3.RBACPerRoute"),
        "rbac": { "rules": {
            "action": "ALLOW",
            "policies": { "ip-rules": { "permissions": [{ "any": true }], "principals": principals } },
        } },
    })
}

fn retry_policy(settings: &EffectiveSettings) -> Option<Value> {
    let mut on: Vec<&str> = Vec::new();
    let mut codes = Vec::new();
    for reason in &settings.retry_on {
        let conditions: &[&str] = match reason {
            RetryOn::Error => &["connect-failure", "refused-stream", "reset"],
            RetryOn::Timeout => &["connect-failure", "reset"],
            RetryOn::InvalidHeader => &["reset"],
            RetryOn::ConnectFailure => &["connect-failure"],
            RetryOn::Http403 | RetryOn::Http404 | RetryOn::Http429 => &["retriable-status-codes"],
            RetryOn::Http500 | RetryOn::Http502 | RetryOn::Http503 | RetryOn::Http504 => &["retriable-status-codes"],
        };
        codes.extend(match reason {
            RetryOn::Http403 => Some(403),
            RetryOn::Http404 => Some(404),
            RetryOn::Http429 => Some(429),
            RetryOn::Http500 => Some(500),
            RetryOn::Http502 => Some(502),
            RetryOn::Http503 => Some(503),
            RetryOn::Http504 => Some(504),
            RetryOn::Error | RetryOn::Timeout | RetryOn::InvalidHeader | RetryOn::ConnectFailure => None,
        });
        for condition in conditions {
            if !on.contains(condition) {
                on.push(condition);
            }
        }
    }
    let retries = settings.retry_tries.saturating_sub(1);
    if on.is_empty() || retries == 0 {
        return None;
    }
    let mut policy = json!({ "retry_on": on.join(","), "num_retries": retries });
    if !codes.is_empty() {
        policy["retriable_status_codes"] = json!(codes);
    }
    if !settings.retry_per_try_timeout.is_zero() {
        policy["per_try_timeout"] = json!(seconds(settings.retry_per_try_timeout));
    }
    Some(policy)
}
