use std::path::Path;

use super::{
    KIND,
    config::{CONF, Layout, render},
};
use crate::model::{
    build,
    fixtures::{SHOP, objects},
};

fn layout() -> Layout {
    Layout {
        state: "/tmp/gateway".into(),
        http_port: 80,
        https_port: 443,
        version: (1, 22, 1),
        root: true,
        open_files: 1024,
        name_servers: vec![[10, 96, 0, 10].into()],
    }
}

fn conf(yaml: &str) -> String {
    render(&build(KIND, &objects(yaml)), &layout())[Path::new(CONF)].clone()
}

fn with_settings(settings: &str) -> String {
    conf(&SHOP.replace("settings.yaml: \"\"", &format!("settings.yaml: \"{settings}\"")))
}

#[test]
fn defaults() {
    insta::assert_snapshot!(conf(SHOP));
}

#[test]
fn a_service_without_endpoints_answers_503() {
    let conf = conf(&SHOP.replace("ready: true", "ready: false"));
    assert!(conf.contains("return 503;") && !conf.contains("proxy_pass"), "{conf}");
}

#[test]
fn a_single_endpoint_can_be_tried_as_often_as_the_settings_say() {
    let one = |settings: &str| {
        conf(
            &SHOP
                .replace("10.244.1.3], conditions: { ready: true", "10.244.1.3], conditions: { ready: false")
                .replace("settings.yaml: \"\"", &format!("settings.yaml: \"{settings}\"")),
        )
    };
    assert_eq!(one("").matches("server 10.244.0.4:8080 max_fails=0;").count(), 3);
    assert_eq!(one("{retries: {tries: 1}}").matches("server 10.244.0.4:8080").count(), 1);
    let off = one("{retries: {on: []}}");
    assert_eq!(off.matches("server 10.244.0.4:8080").count(), 1);
    assert!(off.contains("proxy_next_upstream off;"), "{off}");
}

#[test]
fn settings_become_directives() {
    let conf = with_settings(
        "{connect-timeout: 500ms, read-timeout: 1s, send-timeout: 2s, idle-timeout: 3s, keepalive: {connections: 7, requests: 8, time: 9s}, \
         retries: {tries: 2, on: [error, http-502], timeout: 4s, non-idempotent: true}, buffers: {response-header: 8k}, workers: 1, \
         request-body-limit: 2m, client-idle-timeout: 10s}",
    );
    for directive in [
        "proxy_connect_timeout 500ms;",
        "proxy_read_timeout 1s;",
        "proxy_send_timeout 2s;",
        "keepalive_timeout 3s;",
        "keepalive 7;",
        "keepalive_requests 8;",
        "keepalive_time 9s;",
        "proxy_next_upstream error http_502 non_idempotent;",
        "proxy_next_upstream_tries 2;",
        "proxy_next_upstream_timeout 4s;",
        "proxy_buffer_size 8k;",
        "worker_processes 1;",
        "client_max_body_size 2m;",
        "keepalive_timeout 10s;",
    ] {
        assert!(conf.contains(directive), "{directive} is not in\n{conf}");
    }
}

#[test]
fn passive_checks_take_a_server_out() {
    let conf = with_settings("{passive-checks: {failures: 2, ejection-time: 2500ms}}");
    // One line for each endpoint, although three tries are asked for: each line has a count of its own.
    assert_eq!(conf.matches(" max_fails=2 fail_timeout=3s;").count(), 2, "{conf}");
    assert!(conf.contains(" 256k;") && !conf.contains("max_fails=0"), "{conf}");
}

#[test]
fn without_a_pool_every_request_closes_its_connection() {
    let conf = with_settings("{keepalive: {connections: 0}}");
    assert!(!conf.contains("keepalive 320") && conf.contains("proxy_set_header Connection $connection_upgrade_or_close;"), "{conf}");
}

#[test]
fn protocols() {
    let https = with_settings("{backend-protocol: HTTPS, tls: {verify: true, name: shop.internal}}");
    for directive in
        ["proxy_pass https://shop-shop-80;", "proxy_ssl_verify on;", "proxy_ssl_name \\\"shop.internal\\\";", "proxy_ssl_server_name on;"]
    {
        assert!(https.contains(&directive.replace('\\', "")), "{directive} is not in\n{https}");
    }
    let h2c = with_settings("{backend-protocol: H2C}");
    assert!(h2c.contains("grpc_pass grpc://shop-shop-80;") && h2c.contains("grpc_read_timeout 60s;"), "{h2c}");
}

#[test]
fn older_nginx_gets_only_what_it_knows() {
    let old = Layout { version: (1, 18, 0), ..layout() };
    let conf = render(&build(KIND, &objects(SHOP)), &old)[Path::new(CONF)].clone();
    assert!(!conf.contains("keepalive_time ") && !conf.contains("ssl_reject_handshake"), "{conf}");
}

#[test]
fn paths_become_locations() {
    let paths = "[{ path: /cart, pathType: Prefix, backend: { service: { name: shop, port: { number: 80 } } } }, \
                  { path: /cart, pathType: Exact, backend: { service: { name: gone, port: { number: 80 } } } }, \
                  { path: /img, pathType: ImplementationSpecific, backend: { service: { name: shop, port: { number: 80 } } } }]";
    let original = "[{ path: /, pathType: Prefix, backend: { service: { name: shop, port: { number: 80 } } } }]";
    let conf = conf(&SHOP.replace(original, paths));
    let locations: Vec<&str> = conf.lines().map(str::trim).filter(|line| line.starts_with("location ")).collect();
    insta::assert_debug_snapshot!(locations);
}

#[test]
fn an_external_name_is_looked_up_for_each_request() {
    let external = SHOP.replace(
        "spec: { ports: [{ name: http, port: 80, targetPort: http }] }",
        "spec: { type: ExternalName, externalName: Stock.Warehouse.svc.cluster.local., ports: [{ name: http, port: 80 }] }",
    );
    let text = conf(&external.replace("settings.yaml: \"\"", "settings.yaml: \"{dns: {timeout: 2s, valid: 300ms}}\""));
    for directive in [
        "resolver 10.96.0.10 valid=1s ipv6=off;",
        "resolver_timeout 2s;",
        "set $external_name \"stock.warehouse.svc.cluster.local:80\";",
        "proxy_pass http://$external_name;",
        "proxy_set_header Connection $connection_upgrade_or_close;",
    ] {
        assert!(text.contains(directive), "{directive} is not in\n{text}");
    }
    assert!(!text.contains("upstream shop-"), "{text}");
    let bad = SHOP.replace("spec: { ports:", "spec: { type: ExternalName, externalName: \"a b;\", ports:");
    assert!(conf(&bad).contains("return 503;"));
}

#[test]
fn a_path_is_rewritten_and_sources_are_allowed_as_ingress_nginx_does_it() {
    let annotations = "annotations: { nginx.ingress.kubernetes.io/rewrite-target: /, \
        nginx.ingress.kubernetes.io/whitelist-source-range: 192.0.2.0/24 }, resourceVersion: \"2\"";
    let annotated = SHOP.replacen("resourceVersion: \"2\"", annotations, 1);
    let at = |path: &str| conf(&annotated.replace("path: /,", &format!("path: {path},")));
    let conf = at("/v1.0");
    assert!(conf.contains("rewrite \"(?i)/v1\\.0\" / break;"), "{conf}");
    assert!(conf.contains("allow 192.0.2.0/24;\n            deny all;\n"), "{conf}");
    // What is the target already is left alone
    assert!(!at("/").contains("rewrite "));
}
