//! What the controller has put in force, held against what the objects ask for: its `nginx.conf`, and what its Lua balancer was given
//! (`GET /configuration/backends` on the status port, which `/dbg backends` asks too).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::config_map::seconds;
use crate::{
    model::{Backend, Host, HostName, Model, PathMatch, Route, Target},
    nginx,
    settings::{BackendProtocol, EffectiveSettings, size},
};

/// What is not yet, or no longer, as the objects say; `None` when all is. `backends`: JSON of the balancer's list.
pub(super) fn difference(model: &Model, backends: &Value, conf: &str) -> Option<String> {
    difference_of_backends(model, backends)
        .or_else(|| difference_of_servers(model, conf))
        .or_else(|| difference_of_pool(&model.global, conf))
}

/// Whether requests go to the addresses that they are to go to, and to other ports there.
pub(super) fn only_ports_differ(model: &Model, backends: &Value) -> bool {
    let hosts = |servers: &BTreeSet<String>| -> BTreeSet<String> {
        servers.iter().filter_map(|server| server.rsplit_once(':')).map(|(host, _)| host.to_owned()).collect()
    };
    let actual = balanced(backends);
    let of = |name: &String| actual.get(name.as_str()).cloned().unwrap_or_default();
    let mut differing =
        model.backends.iter().map(|(name, backend)| (servers(backend), of(name))).filter(|(wanted, actual)| wanted != actual);
    let mut any = false;
    differing.all(|(wanted, actual)| {
        any = true;
        !wanted.is_empty() && hosts(&wanted) == hosts(&actual)
    }) && any
}

/// The servers of each backend in the balancer's list.
fn balanced(backends: &Value) -> BTreeMap<&str, BTreeSet<String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let servers = |backend: &Value| -> BTreeSet<String> {
        let endpoints = backend["endpoints"].as_array().into_iter().flatten();
        endpoints.map(|one| format!("{}:{}", text(&one["address"]), text(&one["port"]))).collect()
    };
    backends.as_array().into_iter().flatten().map(|backend| (backend["name"].as_str().unwrap_or_default(), servers(backend))).collect()
}

fn difference_of_backends(model: &Model, backends: &Value) -> Option<String> {
    let mut actual = balanced(backends);
    for (name, backend) in &model.backends {
        let (expected, actual) = (servers(backend), actual.remove(name.as_str()).unwrap_or_default());
        if expected != actual {
            return Some(format!("its balancer sends {name} to {actual:?} and not to {expected:?}"));
        }
    }
    let stale = actual.iter().find(|(name, servers)| **name != nginx::DEFAULT_BACKEND && !servers.is_empty());
    stale.map(|(name, servers)| format!("its balancer still sends {name} to {servers:?}"))
}

fn servers(backend: &Backend) -> BTreeSet<String> {
    let external = backend.external.iter().map(|external| format!("{}:{}", external.name, external.port));
    backend.endpoints.iter().map(ToString::to_string).chain(external).collect()
}

fn difference_of_servers(model: &Model, conf: &str) -> Option<String> {
    // It has no ConfigMap key, so the settings of the whole gateway cannot ask for it.
    let everywhere = model.global.backend_protocol;
    let wanted: BTreeSet<String> = model.hosts.iter().map(server_name).collect();
    let written: Vec<&str> = conf.lines().filter_map(|line| line.trim().strip_prefix("## start server ")).collect();
    if let Some(stale) = written.iter().find(|name| **name != "_" && !wanted.contains(**name)) {
        return Some(format!("nginx.conf still has a server {stale}"));
    }
    model
        .hosts
        .iter()
        .find_map(|host| {
            let name = server_name(host);
            let text = conf.split_once(&format!("## start server {name}\n"))?.1;
            let text = text.split_once(&format!("## end server {name}\n")).map_or(text, |(text, _)| text);
            let locations = locations(text);
            host.routes.iter().find_map(|route| difference_of_route(&name, route, &locations, everywhere))
        })
        .or_else(|| {
            let missing = wanted.iter().find(|name| !written.contains(&name.as_str()));
            missing.map(|name| format!("nginx.conf has no server {name}"))
        })
}

/// As `## start server` names it.
fn server_name(host: &Host) -> String {
    match &host.name {
        HostName::Exact(name) => name.clone(),
        HostName::Wildcard(rest) => format!("*.{rest}"),
        HostName::Any => "_".to_owned(),
    }
}

/// The head of each location (`= /shop`, `/shop/`, `~* "^/shop"`) and its directives.
fn locations(server: &str) -> Vec<(&str, Vec<&str>)> {
    let mut locations: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in server.lines().map(str::trim) {
        if let Some(head) = line.strip_prefix("location ").and_then(|rest| rest.strip_suffix('{')) {
            locations.push((head.trim(), Vec::new()));
        } else if let Some((_, directives)) = locations.last_mut()
            && let Some(directive) = line.strip_suffix(';')
        {
            directives.push(directive);
        }
    }
    locations
}

fn difference_of_route(server: &str, route: &Route, locations: &[(&str, Vec<&str>)], everywhere: BackendProtocol) -> Option<String> {
    let fits = |head: &str| match (head.strip_prefix("~* \"^"), head.strip_prefix("= ")) {
        (Some(pattern), _) => pattern.trim_end_matches('"').trim_end_matches('/') == route.path.trim_end_matches('/'),
        (None, Some(exact)) => exact == route.path,
        (None, None) => route.matching != PathMatch::Exact && head.trim_end_matches('/') == route.path.trim_end_matches('/'),
    };
    let mut fitting = locations.iter().filter(|(head, _)| fits(head)).peekable();
    if fitting.peek().is_none() {
        return Some(format!("nginx.conf has no location for {server}{}", route.path));
    }
    let differences: Vec<String> = fitting
        .filter_map(|(_, directives)| {
            directives_of(route, everywhere).into_iter().find_map(|(name, value)| {
                let written = value_of(directives, &name);
                (written.as_deref() != Some(value.as_str()))
                    .then(|| format!("nginx.conf has {name} {} for {server}{}, not {value}", written.unwrap_or_default(), route.path))
            })
        })
        .collect();
    // Of `/shop/` and `= /shop` for one path one may be another rule's.
    let all = locations.iter().filter(|(head, _)| fits(head)).count();
    if differences.len() == all { differences.into_iter().next() } else { None }
}

/// Of several directives of one name the last, as of `set $name`.
fn value_of(directives: &[&str], name: &str) -> Option<String> {
    let mut values = directives.iter().filter_map(|directive| directive.strip_prefix(name)?.strip_prefix(' '));
    values.next_back().map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What the settings become in a location, as its template writes it (rootfs/etc/nginx/template/nginx.tmpl).
fn directives_of(route: &Route, everywhere: BackendProtocol) -> Vec<(String, String)> {
    let settings = &route.settings;
    let (Target::Backend(backend) | Target::Unresolved(backend)) = &route.target;
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    let time = |duration| format!("{}s", seconds(duration));
    let non_idempotent = if settings.retry_non_idempotent { " non_idempotent" } else { "" };
    let mut directives = vec![
        ("set $proxy_upstream_name", format!("\"{backend}\"")),
        ("proxy_connect_timeout", time(settings.connect_timeout)),
        ("proxy_send_timeout", time(settings.send_timeout)),
        ("proxy_read_timeout", time(settings.read_timeout)),
        ("proxy_buffering", switch(settings.response_buffering)),
        ("proxy_buffer_size", size::write(settings.response_header_buffer)),
        ("proxy_request_buffering", switch(settings.request_buffering)),
        ("proxy_next_upstream", format!("{}{non_idempotent}", nginx::reasons(&settings.retry_on))),
        ("proxy_next_upstream_tries", settings.retry_tries.to_string()),
    ];
    let pass = match settings.backend_protocol {
        protocol if protocol == everywhere => None,
        BackendProtocol::Http => Some(("proxy_pass", "http")),
        BackendProtocol::Https => Some(("proxy_pass", "https")),
        BackendProtocol::Grpc => Some(("grpc_pass", "grpc")),
        BackendProtocol::Grpcs => Some(("grpc_pass", "grpcs")),
        BackendProtocol::H2c => None,
    };
    directives.extend(pass.map(|(directive, scheme)| (directive, format!("{scheme}://upstream_balancer"))));
    directives.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The one `upstream` of all backends.
fn difference_of_pool(settings: &EffectiveSettings, conf: &str) -> Option<String> {
    let Some((_, pool)) = conf.split_once("upstream upstream_balancer {") else {
        return Some("nginx.conf has no upstream for its balancer".to_owned());
    };
    // Servers have directives of these names, too.
    let pool = pool.split_once("## start server").map_or(pool, |(pool, _)| pool);
    let directives: Vec<&str> = pool.lines().filter_map(|line| line.trim().strip_suffix(';')).collect();
    if settings.keepalive_connections == 0 {
        return None;
    }
    let wanted = [
        ("keepalive", settings.keepalive_connections.to_string()),
        ("keepalive_timeout", format!("{}s", seconds(settings.idle_timeout))),
        ("keepalive_requests", settings.keepalive_requests.to_string()),
    ];
    wanted.into_iter().find_map(|(name, value)| {
        let written = value_of(&directives, name);
        (written.as_deref() != Some(value.as_str())).then(|| format!("nginx.conf has {name} {}, not {value}", written.unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        ingress_nginx::KIND,
        model::{
            build,
            fixtures::{SHOP, objects},
        },
    };

    /// Parts of a file that ingress-nginx 1.11 wrote for the shop, whose Ingress named the port.
    fn conf() -> String {
        include_str!("nginx.conf.txt").replace("shop-shop-http", "shop-shop-80")
    }

    fn class() -> String {
        SHOP.replace("gatelab.dev/gateway-agent", KIND.controller())
    }

    fn model(yaml: &str) -> Model {
        build(KIND, &objects(yaml))
    }

    fn backends(endpoints: &[&str]) -> Value {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|address| address.split_once(':').unwrap())
            .map(|(address, port)| json!({ "address": address, "port": port }))
            .collect();
        json!([
            { "name": "shop-shop-80", "endpoints": endpoints },
            { "name": "upstream-default-backend", "endpoints": [{ "address": "127.0.0.1", "port": "8181" }] },
        ])
    }

    const BOTH: [&str; 2] = ["10.244.1.3:8080", "10.244.0.4:8080"];

    #[test]
    fn endpoints_are_held_against_what_the_balancer_has() {
        let model = model(&class());
        assert_eq!(difference(&model, &backends(&BOTH), &conf()), None);
        for (endpoints, part) in [
            (&BOTH[..1], "sends shop-shop-80 to"),
            (&["10.244.1.3:8080", "10.244.0.4:8080", "10.244.0.5:8080"][..], "sends shop-shop-80 to"),
            (&["10.244.1.3:8081", "10.244.0.4:8081"][..], "sends shop-shop-80 to"),
        ] {
            let found = difference(&model, &backends(endpoints), &conf()).unwrap();
            assert!(found.contains(part), "{found}");
        }
        assert!(difference(&model, &json!([]), &conf()).is_some());
        // A Service without endpoints is in its list with none, or null.
        let without = super::tests::model(&class().replace("ready: true", "ready: false"));
        assert!(difference(&without, &backends(&BOTH), &conf()).is_some());
        assert_eq!(difference(&without, &json!([{ "name": "shop-shop-80", "endpoints": null }]), &conf()), None);
        let only_ports = |endpoints: &[&str]| only_ports_differ(&model, &backends(endpoints));
        assert!(only_ports(&["10.244.1.3:8081", "10.244.0.4:8081"]));
        assert!(!only_ports(&BOTH) && !only_ports(&BOTH[..1]) && !only_ports(&["10.244.1.3:8081"]) && !only_ports(&[]));
        assert!(!only_ports_differ(&without, &json!([])));
        // An Ingress of another class is none of its own
        assert!(difference(&super::tests::model(SHOP), &backends(&BOTH), &conf()).unwrap().contains("still sends shop-shop-80"));
    }

    #[test]
    fn routes_and_settings_are_held_against_its_file() {
        let found = |yaml: &str| difference(&model(yaml), &backends(&BOTH), &conf());
        let told = |yaml: &str, part: &str| {
            let found = found(yaml).unwrap_or_else(|| panic!("no difference, where {part} should be one"));
            assert!(found.contains(part), "{found}");
        };
        told(&class().replace("host: shop.test", "host: other.test"), "still has a server shop.test");
        told(&class().replace("path: /,", "path: /api,"), "no location for shop.test/api");
        let annotated = |annotation: &str| {
            class().replace(
                "name: shop, namespace: shop, resourceVersion: \"2\"",
                &format!(
                    "name: shop, namespace: shop, annotations: {{ nginx.ingress.kubernetes.io/{annotation} }}, resourceVersion: \"2\""
                ),
            )
        };
        told(&annotated("proxy-read-timeout: \"1\""), "proxy_read_timeout 60s for shop.test/, not 1s");
        told(&annotated("backend-protocol: HTTPS"), "proxy_pass http://upstream_balancer");
        told(&annotated("proxy-next-upstream-tries: \"1\""), "proxy_next_upstream_tries 3");
        assert_eq!(found(&annotated("proxy-read-timeout: \"60\"")), None);
        let settings = |text: &str| class().replace("settings.yaml: \"\"", &format!("settings.yaml: \"{text}\""));
        told(&settings("{connect-timeout: 500ms}"), "proxy_connect_timeout 5s for shop.test/, not 1s");
        told(&settings("{idle-timeout: 3s}"), "keepalive_timeout 60s, not 3s");
    }
}
