//! The way that a request should take, read from Ingress, Service and EndpointSlices as a person would.

use gateways::GatewayKind;
use gateways::settings::{Annotations, BackendProtocol, ServicePort, ingress_overrides, service_overrides};
use serde_json::Value;

use crate::run::mirror::Snapshot;

/// Where a Service would send a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: String,
    pub port: u16,
    pub pod: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub namespace: String,
    pub service: String,
    /// `None` for headless Services and those that do not exist.
    pub cluster_ip: Option<String>,
    pub port: Option<u16>,
    /// Of a Service of type ExternalName: the name that the gateway has to look up.
    pub external_name: Option<String>,
    pub ready: Vec<Endpoint>,
    /// What the gateway is told to speak to the application.
    pub speech: Speech,
    /// What is wrong with the way itself, such as a Service that does not exist.
    pub broken: Option<String>,
}

/// A protocol between gateway and application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speech {
    pub tls: bool,
    /// HTTP/2, by prior knowledge or ALPN, rather than HTTP/1.1.
    pub http2: bool,
}

impl Speech {
    /// As a gateway is told it.
    pub fn of(protocol: BackendProtocol) -> Self {
        Speech {
            tls: matches!(protocol, BackendProtocol::Https | BackendProtocol::Grpcs),
            http2: matches!(protocol, BackendProtocol::Grpc | BackendProtocol::Grpcs | BackendProtocol::H2c),
        }
    }
}

/// Finds the way of a request; an error says at which object it ends.
pub fn find(snapshot: &Snapshot, gateway: GatewayKind, host: &str, target: &str, by_default: Speech) -> Result<Route, String> {
    let path = target.split('?').next().unwrap_or("/");
    let (ingress, backend) = best_rule(snapshot, host, path).ok_or_else(|| format!("no Ingress has a rule for {host}{path}"))?;
    let namespace = text(ingress, "/metadata/namespace");
    let service = backend.pointer("/service/name").and_then(Value::as_str).ok_or("the Ingress rule names no Service")?.to_owned();
    let mut route = Route {
        namespace: namespace.clone(),
        service: service.clone(),
        cluster_ip: None,
        port: None,
        external_name: None,
        ready: Vec::new(),
        speech: ingress_overrides(gateway, &annotations(ingress)).0.backend_protocol.map_or(by_default, Speech::of),
        broken: None,
    };
    let Some(object) = snapshot.get("Service", &namespace, &service) else {
        route.broken = Some(format!("Service {namespace}/{service} does not exist"));
        return Ok(route);
    };
    route.cluster_ip = object.pointer("/spec/clusterIP").and_then(Value::as_str).filter(|ip| *ip != "None").map(str::to_owned);
    let wanted = &backend["service"]["port"];
    let port = object.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten().find(|port| {
        wanted["number"].as_u64().is_some_and(|number| port["port"].as_u64() == Some(number))
            || wanted["name"].as_str().is_some_and(|name| port["name"].as_str() == Some(name))
    });
    let Some(port) = port else {
        route.broken = Some(format!("Service {namespace}/{service} has no port {wanted}"));
        return Ok(route);
    };
    route.port = port["port"].as_u64().and_then(|number| u16::try_from(number).ok());
    let port_name = port["name"].as_str().unwrap_or_default();
    let service_port =
        ServicePort { annotations: &annotations(object), name: port["name"].as_str(), number: route.port.unwrap_or_default() };
    if let Some(protocol) = service_overrides(gateway, &service_port).0.backend_protocol {
        route.speech = Speech::of(protocol);
    }
    if object.pointer("/spec/type").and_then(Value::as_str) == Some("ExternalName") {
        let name = object.pointer("/spec/externalName").and_then(Value::as_str).unwrap_or_default();
        route.external_name = Some(name.to_owned());
        // A name of the cluster leads to another Service; what is outside cannot be looked into.
        if let Some((other, other_namespace)) = cluster_service(name) {
            route.ready = ready_endpoints(snapshot, other_namespace, other, port_name);
            route.namespace = other_namespace.to_owned();
        }
        return Ok(route);
    }
    route.ready = ready_endpoints(snapshot, &namespace, &service, port_name);
    if route.ready.is_empty() {
        route.broken = Some(format!("Service {namespace}/{service} has no ready endpoint"));
    }
    Ok(route)
}

/// `name` and `namespace` of `name.namespace.svc.cluster.local`.
fn cluster_service(name: &str) -> Option<(&str, &str)> {
    name.trim_end_matches('.').strip_suffix(".svc.cluster.local")?.split_once('.')
}

/// Exact host before wildcard before none, exact path before the longest prefix (Ingress, "Multiple matches").
fn best_rule<'a>(snapshot: &'a Snapshot, host: &str, path: &str) -> Option<(&'a Value, &'a Value)> {
    let mut best: Option<((u8, u8, usize), &Value, &Value)> = None;
    for ingress in snapshot.of_kind("Ingress", None) {
        for rule in ingress.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten() {
            let host_rank = match rule["host"].as_str() {
                Some(name) if name == host => 3,
                Some(name) if name.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix)) => 2,
                None => 1,
                Some(_) => continue,
            };
            for entry in rule.pointer("/http/paths").and_then(Value::as_array).into_iter().flatten() {
                let prefix = entry["path"].as_str().unwrap_or("/");
                let exact = entry["pathType"] == "Exact";
                let matches = if exact { prefix == path } else { is_prefix(prefix, path) };
                let rank = (host_rank, u8::from(exact), prefix.len());
                if matches && best.as_ref().is_none_or(|(held, _, _)| rank > *held) {
                    best = Some((rank, ingress, &entry["backend"]));
                }
            }
        }
    }
    let default = || {
        let ingress = snapshot.of_kind("Ingress", None).find(|ingress| !ingress["spec"]["defaultBackend"].is_null())?;
        Some((ingress, &ingress["spec"]["defaultBackend"]))
    };
    best.map(|(_, ingress, backend)| (ingress, backend)).or_else(default)
}

/// Prefixes match whole path elements.
fn is_prefix(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn annotations(object: &Value) -> Annotations {
    let pairs = object.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn ready_endpoints(snapshot: &Snapshot, namespace: &str, service: &str, port_name: &str) -> Vec<Endpoint> {
    let mut found = Vec::new();
    for slice in snapshot.of_kind("EndpointSlice", Some(namespace)) {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != service {
            continue;
        }
        let ports = slice["ports"].as_array().into_iter().flatten();
        let port = ports.filter(|port| port["name"].as_str().unwrap_or_default() == port_name).find_map(|port| port["port"].as_u64());
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if !endpoint["conditions"]["ready"].as_bool().unwrap_or(true) {
                continue;
            }
            let pod = endpoint.pointer("/targetRef/name").and_then(Value::as_str).map(str::to_owned);
            for address in endpoint["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                found.push(Endpoint { ip: address.to_owned(), port, pod: pod.clone() });
            }
        }
    }
    found
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nginx() -> GatewayKind {
        "nginx".parse().unwrap()
    }

    fn world(target_port: u16, ready: bool) -> Snapshot {
        Snapshot::from_objects([
            json!({ "kind": "Ingress", "metadata": { "namespace": "shop", "name": "shop" }, "spec": { "rules": [
                { "host": "shop.test", "http": { "paths": [
                    { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "shop", "port": { "number": 80 } } } },
                    { "path": "/pay", "pathType": "Prefix", "backend": { "service": { "name": "pay", "port": { "name": "http" } } } }] } }] } }),
            json!({ "kind": "Service", "metadata": { "namespace": "shop", "name": "shop" },
                "spec": { "clusterIP": "10.96.3.4", "ports": [{ "name": "http", "port": 80 }] } }),
            json!({ "kind": "EndpointSlice", "metadata": { "namespace": "shop", "name": "shop-1", "labels": { "kubernetes.io/service-name": "shop" } },
                "ports": [{ "name": "http", "port": target_port }],
                "endpoints": [{ "addresses": ["10.244.0.9"], "conditions": { "ready": ready }, "targetRef": { "name": "shop-a" } }] }),
        ])
    }

    #[test]
    fn the_way_leads_to_the_ready_endpoints() {
        let route = find(&world(8081, true), nginx(), "shop.test", "/?a=1", Speech::default()).unwrap();
        assert_eq!((route.cluster_ip.as_deref(), route.port), (Some("10.96.3.4"), Some(80)));
        assert_eq!(route.ready, [Endpoint { ip: "10.244.0.9".into(), port: 8081, pod: Some("shop-a".into()) }]);
        assert_eq!(route.broken, None);
    }

    #[test]
    fn an_external_name_leads_to_the_service_it_names() {
        let objects = world(8080, true).of_kind("Service", None).cloned().chain(
            world(8080, true).of_kind("EndpointSlice", None).cloned()).chain([
            json!({ "kind": "Ingress", "metadata": { "namespace": "front", "name": "front" }, "spec": { "rules": [
                { "host": "shop.test", "http": { "paths": [
                    { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "shop", "port": { "number": 80 } } } }] } }] } }),
            json!({ "kind": "Service", "metadata": { "namespace": "front", "name": "shop" }, "spec": { "type": "ExternalName",
                "externalName": "shop.shop.svc.cluster.local", "ports": [{ "name": "http", "port": 80 }] } }),
        ]).collect::<Vec<_>>();
        let route = find(&Snapshot::from_objects(objects), nginx(), "shop.test", "/", Speech::default()).unwrap();
        assert_eq!((route.external_name.as_deref(), route.broken.as_deref()), (Some("shop.shop.svc.cluster.local"), None));
        assert_eq!((route.namespace.as_str(), route.ready.len()), ("shop", 1));
    }

    #[test]
    fn applications_are_spoken_to_as_this_gateway_is_told_to() {
        let told = |gateway: &str, kind: &str, annotation: &str, protocol: &str| {
            let objects = ["Ingress", "Service", "EndpointSlice"].into_iter().flat_map(|name| {
                let mut objects: Vec<Value> = world(8080, true).of_kind(name, None).cloned().collect();
                if name == kind {
                    objects[0]["metadata"]["annotations"] = json!({ annotation: protocol });
                }
                objects
            });
            let snapshot = Snapshot::from_objects(objects.collect::<Vec<_>>());
            find(&snapshot, gateway.parse().unwrap(), "shop.test", "/", Speech::default()).unwrap().speech
        };
        let of_nginx = "nginx.ingress.kubernetes.io/backend-protocol";
        assert_eq!(told("nginx", "Ingress", of_nginx, "HTTPS"), Speech { tls: true, http2: false });
        assert_eq!(told("nginx", "Ingress", of_nginx, "GRPC"), Speech { tls: false, http2: true });
        assert_eq!(told("nginx", "Ingress", of_nginx, "GRPCS"), Speech { tls: true, http2: true });
        assert_eq!(told("nginx", "Ingress", of_nginx, "HTTP"), Speech::default());
        assert_eq!(told("envoy", "Ingress", of_nginx, "HTTPS"), Speech::default(), "an annotation of another controller");
        assert_eq!(told("envoy", "Service", "projectcontour.io/upstream-protocol.h2c", "http"), Speech { tls: false, http2: true });
        assert_eq!(told("haproxy", "Service", "haproxy-ingress.github.io/backend-protocol", "h1-ssl"), Speech { tls: true, http2: false });
    }

    #[test]
    fn what_breaks_the_way_is_said() {
        assert!(
            find(&world(8081, false), nginx(), "shop.test", "/", Speech::default()).unwrap().broken.unwrap().contains("no ready endpoint")
        );
        assert!(
            find(&world(8081, true), nginx(), "shop.test", "/pay/now", Speech::default())
                .unwrap()
                .broken
                .unwrap()
                .contains("shop/pay does not exist")
        );
        assert!(find(&world(8081, true), nginx(), "other.test", "/", Speech::default()).unwrap_err().contains("no Ingress"));
    }
}
