//! What Traefik says that it routes (`/api/rawdata`), held against what the objects ask for.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    model::{HostName, Model, PathMatch, Target},
    settings::BackendProtocol,
};

/// What is not yet, or no longer, as the objects say; `None` when all is.
pub(super) fn difference(model: &Model, raw: &Value) -> Option<String> {
    let routers: Vec<&Value> = of_kubernetes(raw, "routers").map(|(_, router)| router).collect();
    let services: Vec<(&str, &Value)> = of_kubernetes(raw, "services").collect();
    let mut wanted = BTreeSet::new();
    for host in &model.hosts {
        for route in &host.routes {
            let Target::Backend(name) = &route.target else { continue };
            let Some(backend) = model.backends.get(name) else { continue };
            let scheme = match route.settings.backend_protocol {
                BackendProtocol::Http => "http",
                BackendProtocol::Https | BackendProtocol::Grpcs => "https",
                BackendProtocol::H2c | BackendProtocol::Grpc => "h2c",
            };
            let external = backend.external.iter().map(|external| format!("{scheme}://{}:{}", external.name, external.port));
            let expected: BTreeSet<String> =
                backend.endpoints.iter().map(|endpoint| format!("{scheme}://{endpoint}")).chain(external).collect();
            let actual = services.iter().find(|(service, _)| service == name).map(|(_, service)| servers(service)).unwrap_or_default();
            if actual != expected {
                return Some(format!("Traefik sends {name} to {actual:?} and not to {expected:?}"));
            }
            if expected.is_empty() {
                continue;
            }
            wanted.insert(name.as_str());
            let fits = |router: &&Value| {
                let rule = router["rule"].as_str().unwrap_or_default();
                let host = match &host.name {
                    HostName::Exact(name) => ['"', '`'].iter().any(|quote| rule.contains(&format!("Host({quote}{name}{quote})"))),
                    HostName::Wildcard(rest) => rule.contains(&rest.replace('.', "\\.")) || rule.contains(rest.as_str()),
                    HostName::Any => !rule.contains("Host"),
                };
                let named = || router["middlewares"].as_array().into_iter().flatten().filter_map(Value::as_str);
                // An exact path beside a prefix of the same text is another router
                let matcher = if route.matching == PathMatch::Exact { "Path(" } else { "PathPrefix(" };
                host && named().eq(route.middlewares.iter().map(String::as_str))
                    && router["service"] == name.as_str()
                    && (route.path == "/" || rule.contains(matcher) && rule.contains(route.path.as_str()))
            };
            if !routers.iter().any(fits) {
                return Some(format!("Traefik has no router to {name} for {:?} {}", host.name, route.path));
            }
        }
    }
    let stale = routers
        .iter()
        .filter_map(|router| router["service"].as_str())
        .find(|service| !wanted.contains(service) && services.iter().any(|(name, value)| name == service && !servers(value).is_empty()));
    stale.map(|service| format!("Traefik still routes to {service}"))
}

fn of_kubernetes<'a>(raw: &'a Value, kind: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    raw[kind].as_object().into_iter().flatten().filter_map(|(name, value)| Some((name.strip_suffix("@kubernetes")?, value)))
}

fn servers(service: &Value) -> BTreeSet<String> {
    service["loadBalancer"]["servers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|server| Some(server["url"].as_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        model::{
            build,
            fixtures::{SHOP, objects},
        },
        traefik::KIND,
    };

    fn raw(servers: &[&str], host: &str) -> Value {
        let servers: Vec<Value> = servers.iter().map(|address| json!({ "url": format!("http://{address}") })).collect();
        json!({
            "routers": {
                "shop-shop-shop-test@kubernetes":
                    { "rule": format!("Host(\"{host}\") && PathPrefix(\"/\")"), "service": "shop-shop-80", "status": "enabled" },
                "api@internal": { "rule": "PathPrefix(`/api`)", "service": "api@internal" },
            },
            "services": { "shop-shop-80@kubernetes": { "loadBalancer": { "servers": servers } } },
        })
    }

    #[test]
    fn what_traefik_routes_is_held_against_the_objects() {
        let class = SHOP.replace("gatelab.dev/gateway-agent", KIND.controller());
        let model = build(KIND, &objects(&class));
        let both = ["10.244.1.3:8080", "10.244.0.4:8080"];
        assert_eq!(difference(&model, &raw(&both, "shop.test")), None);
        for (raw, part) in [
            (raw(&both[..1], "shop.test"), "sends shop-shop-80 to"),
            (raw(&["10.244.1.3:8080", "10.244.0.4:8080", "10.244.0.5:8080"], "shop.test"), "sends shop-shop-80 to"),
            (raw(&both, "other.test"), "no router to shop-shop-80"),
            (json!({}), "sends shop-shop-80 to"),
        ] {
            let found = difference(&model, &raw).unwrap();
            assert!(found.contains(part), "{found}");
        }
        // A middleware that Traefik does not use yet, and one that it still uses
        let annotated = class.replace("name: shop, namespace: shop, resourceVersion: \"2\"", "name: shop, namespace: shop, annotations: { traefik.ingress.kubernetes.io/router.middlewares: strip@file }, resourceVersion: \"2\"");
        let with = build(KIND, &objects(&annotated));
        assert!(difference(&with, &raw(&both, "shop.test")).unwrap().contains("no router"));
        let mut used = raw(&both, "shop.test");
        used["routers"]["shop-shop-shop-test@kubernetes"]["middlewares"] = json!(["strip@file"]);
        assert_eq!(difference(&with, &used), None);
        assert!(difference(&model, &used).unwrap().contains("no router"));
        let without = build(KIND, &objects(&class.replace("ready: true", "ready: false")));
        assert!(difference(&without, &raw(&both, "shop.test")).is_some(), "servers that are to go are still there");
        assert_eq!(difference(&without, &json!({})), None);
        // An Ingress of another class is none of Traefik's
        let foreign = build(KIND, &objects(SHOP));
        assert!(difference(&foreign, &raw(&both, "shop.test")).unwrap().contains("still routes to shop-shop-80"));
    }
}
