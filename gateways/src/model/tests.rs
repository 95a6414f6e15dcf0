use std::time::Duration;

use super::{
    HostName, PathMatch, Target, build,
    fixtures::{SHOP, objects},
};
use crate::{envoy::KIND as ENVOY, nginx::KIND as NGINX, traefik::KIND as TRAEFIK};

fn addresses(model: &super::Model) -> Vec<String> {
    model.backends.values().flat_map(|backend| &backend.endpoints).map(ToString::to_string).collect()
}

#[test]
fn ready_pods_become_endpoints_and_others_do_not() {
    let model = build(NGINX, &objects(SHOP));
    assert_eq!(addresses(&model), ["10.244.0.4:8080", "10.244.1.3:8080"]);
    assert_eq!(model.hosts.len(), 1);
    assert_eq!(model.hosts[0].name, HostName::Exact("shop.test".to_owned()));
    assert_eq!(model.hosts[0].routes[0].target, Target::Backend("shop-shop-80".to_owned()));
    assert_eq!(model.problems, []);
}

#[test]
fn an_absent_condition_counts_as_ready() {
    let model = build(NGINX, &objects(&SHOP.replace(", conditions: { ready: false, serving: true, terminating: true }", "")));
    assert_eq!(addresses(&model).len(), 3);
}

#[test]
fn slices_of_other_services_ports_and_namespaces_are_not_taken() {
    for (from, to) in [
        ("kubernetes.io/service-name: shop", "kubernetes.io/service-name: other"),
        ("ports: [{ name: http, port: 8080", "ports: [{ name: admin, port: 8080"),
        ("name: shop-1, namespace: shop", "name: shop-1, namespace: other"),
    ] {
        let changed = SHOP.replace(from, to);
        assert_ne!(changed, SHOP);
        assert_eq!(addresses(&build(NGINX, &objects(&changed))), Vec::<String>::new(), "{to}");
    }
}

#[test]
fn a_missing_service_or_port_is_a_problem_of_the_ingress() {
    for (from, to, reason) in [
        ("service: { name: shop,", "service: { name: store,", "ServiceNotFound"),
        ("port: { number: 80 }", "port: { number: 81 }", "ServicePortNotFound"),
        ("port: { number: 80 }", "port: { name: web }", "ServicePortNotFound"),
    ] {
        let model = build(NGINX, &objects(&SHOP.replace(from, to)));
        assert!(matches!(model.hosts[0].routes[0].target, Target::Unresolved(_)), "{to}");
        assert_eq!(model.problems.len(), 1);
        assert_eq!((model.problems[0].reason, model.problems[0].object.name.as_deref()), (reason, Some("shop")));
    }
}

#[test]
fn ingresses_of_other_classes_are_not_ours() {
    let other = SHOP.replace("  rules:\n", "  ingressClassName: other\n  rules:\n");
    assert_eq!(build(NGINX, &objects(&other)).hosts, []);
    let named = SHOP
        .replace("  rules:\n", "  ingressClassName: gateway\n  rules:\n")
        .replace("default-class: \"true\"", "default-class: \"false\"");
    assert_eq!(build(NGINX, &objects(&named)).hosts.len(), 1);
    let unnamed = SHOP.replace("default-class: \"true\"", "default-class: \"false\"");
    assert_eq!(build(NGINX, &objects(&unnamed)).hosts, []);
}

#[test]
fn settings_come_from_the_config_map_and_annotations_win() {
    let text = SHOP.replace("settings.yaml: \"\"", "settings.yaml: \"{connect-timeout: 1s, read-timeout: 2s}\"").replace(
        "name: shop, namespace: shop, resourceVersion: \"2\",",
        "name: shop, namespace: shop, resourceVersion: \"2\", annotations: { gatelab.dev/read-timeout: 3s },",
    );
    let model = build(ENVOY, &objects(&text));
    let settings = &model.hosts[0].routes[0].settings;
    assert_eq!((settings.connect_timeout, settings.read_timeout), (Duration::from_secs(1), Duration::from_secs(3)));
    assert_eq!(model.global.read_timeout, Duration::from_secs(2));
}

#[test]
fn wrong_settings_are_said_and_the_defaults_hold() {
    let model = build(NGINX, &objects(&SHOP.replace("settings.yaml: \"\"", "settings.yaml: \"conect-timeout: 1s\"")));
    assert_eq!(model.global.connect_timeout, Duration::from_secs(5));
    assert_eq!(model.problems[0].reason, "InvalidSettings");
    assert!(model.problems[0].message.contains("conect-timeout"), "{}", model.problems[0].message);
}

#[test]
fn prefix_paths_lose_their_trailing_slash_and_dangerous_ones_are_refused() {
    let path = |path: &str| build(NGINX, &objects(&SHOP.replace("path: /,", &format!("path: \"{path}\","))));
    let model = path("/cart/");
    assert_eq!((model.hosts[0].routes[0].path.as_str(), model.hosts[0].routes[0].matching), ("/cart", PathMatch::Prefix));
    for dangerous in ["/a;b", "/a { return 200; }", "/$uri", "a", "/a\\n"] {
        let model = path(dangerous);
        assert_eq!(model.problems[0].reason, "InvalidPath", "{dangerous}");
        assert!(model.hosts.is_empty());
    }
}

#[test]
fn versions_name_every_object() {
    let versions = objects(SHOP).versions();
    insta::assert_json_snapshot!(versions);
}

#[test]
fn an_external_name_has_no_endpoints_and_is_looked_up() {
    let external = SHOP.replace(
        "spec: { ports: [{ name: http, port: 80,",
        "spec: { type: ExternalName, externalName: Stock.test., ports: [{ name: http, port: 80,",
    );
    let model = build(NGINX, &objects(&external));
    let backend = &model.backends["shop-shop-80"];
    assert_eq!((backend.endpoints.len(), backend.is_empty()), (0, false));
    assert_eq!(backend.external.as_ref().map(|external| (external.name.as_str(), external.port)), Some(("stock.test", 80)));
    let bad = build(NGINX, &objects(&external.replace("Stock.test.", "\"a b\"")));
    assert_eq!(bad.problems.iter().map(|problem| problem.reason).collect::<Vec<_>>(), ["InvalidExternalName"]);
}

#[test]
fn traefik_can_be_told_to_send_to_the_clusters_address() {
    let native = SHOP.replace("name: shop, namespace: shop, resourceVersion: \"3\", uid: u3", "name: shop, namespace: shop, resourceVersion: \"3\", uid: u3, annotations: { traefik.ingress.kubernetes.io/service.nativelb: \"true\" }").replace("spec: { ports: [{ name: http, port: 80,", "spec: { clusterIP: 10.96.7.7, ports: [{ name: http, port: 80,");
    let class = native.replace("gatelab.dev/gateway-agent", TRAEFIK.controller());
    let addresses = |kind, yaml: &str| {
        build(kind, &objects(yaml)).backends["shop-shop-80"].endpoints.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(addresses(TRAEFIK, &class), ["10.96.7.7:80"]);
    assert_eq!(addresses(NGINX, &native).len(), 2);
}
