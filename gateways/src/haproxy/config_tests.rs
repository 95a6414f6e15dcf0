use std::path::Path;

use super::{
    KIND,
    config::{CONF, Layout, render},
};
use crate::model::{
    build,
    fixtures::{SHOP, objects},
};

fn conf(yaml: &str) -> String {
    let layout = Layout {
        state: "/tmp/gateway".into(),
        http_port: 80,
        https_port: 443,
        open_files: 100_000,
        name_servers: vec![[10, 96, 0, 10].into()],
        log: "127.0.0.1:5514".into(),
    };
    render(&build(KIND, &objects(yaml)), &layout)[Path::new(CONF)].clone()
}

fn with_settings(settings: &str) -> String {
    conf(&SHOP.replace("settings.yaml: \"\"", &format!("settings.yaml: \"{settings}\"")))
}

#[test]
fn defaults() {
    insta::assert_snapshot!(conf(SHOP));
}

#[test]
fn a_service_without_endpoints_has_a_backend_without_servers() {
    let conf = conf(&SHOP.replace("ready: true", "ready: false"));
    assert!(
        conf.contains("backend shop-shop-80\n") && conf.lines().all(|line| !line.starts_with("    server ") || line.ends_with(" disabled")),
        "{conf}"
    );
}

#[test]
fn a_service_that_does_not_exist_is_left_out() {
    let conf = conf(&SHOP.replace("service: { name: shop,", "service: { name: store,"));
    assert!(!conf.contains("backend shop-"), "{conf}");
}

#[test]
fn settings_become_directives() {
    let conf = with_settings(
        "{connect-timeout: 500ms, read-timeout: 1s, idle-timeout: 3s, keepalive: {requests: 8}, workers: 1, client-idle-timeout: 10s, \
         retries: {tries: 2, on: [error, http-502]}, request-body-limit: 2m, backend-protocol: HTTPS, tls: {name: shop.internal}}",
    );
    for directive in [
        "    timeout connect 500ms\n",
        "    timeout server 1000ms\n",
        "    timeout http-keep-alive 10000ms\n",
        "    nbthread 1\n",
        "    retries 1\n",
        "    retry-on conn-failure empty-response 502\n",
        "    http-request disable-l7-retry if { method POST PATCH LOCK }\n",
        "req.hdr_val(content-length) gt 2097152 }",
        " pool-purge-delay 3000ms max-reuse 8 ssl verify none sni str(shop.internal)\n",
    ] {
        assert!(conf.contains(directive), "{directive} is not in\n{conf}");
    }
}

#[test]
fn passive_checks_take_a_server_out() {
    let conf = with_settings("{passive-checks: {failures: 2, ejection-time: 3s}}");
    assert!(conf.contains(" observe layer7 error-limit 2 on-error mark-down rise 3\n"), "{conf}");
    assert!(!with_settings("{}").contains("observe"));
}

#[test]
fn annotations_of_its_own_controller_are_read_and_those_of_others_are_not() {
    let with = |annotation: &str| {
        conf(&SHOP.replace(
            "name: shop, namespace: shop, resourceVersion: \"2\"",
            &format!("name: shop, namespace: shop, annotations: {{ {annotation} }}, resourceVersion: \"2\""),
        ))
    };
    assert!(with("haproxy-ingress.github.io/backend-protocol: h1-ssl").contains(" ssl verify none\n"));
    assert!(!with("nginx.ingress.kubernetes.io/backend-protocol: HTTPS").contains(" ssl verify none\n"));
}

#[test]
fn an_external_name_is_looked_up_by_haproxys_resolvers() {
    let external = SHOP.replace(
        "spec: { ports: [{ name: http, port: 80, targetPort: http }] }",
        "spec: { type: ExternalName, externalName: stock.warehouse.svc.cluster.local, ports: [{ name: http, port: 80 }] }",
    );
    let text = conf(&external.replace("settings.yaml: \"\"", "settings.yaml: \"{dns: {timeout: 500ms, valid: 2s}}\""));
    for directive in [
        "resolvers kubernetes\n    nameserver dns0 10.96.0.10:53\n",
        "    hold valid 2000ms\n    timeout resolve 500ms\n    timeout retry 500ms\n",
        "    server srv001 stock.warehouse.svc.cluster.local:80 check ",
        " resolvers kubernetes resolve-prefer ipv4 init-addr none\n",
    ] {
        assert!(text.contains(directive), "{directive} is not in\n{text}");
    }
    assert!(!conf(SHOP).contains("resolvers"));
}

#[test]
fn a_path_is_rewritten_and_sources_are_allowed_as_haproxy_ingress_does_it() {
    let annotated = |target: &str| {
        let annotations = format!(
            "annotations: {{ haproxy-ingress.github.io/rewrite-target: {target}, \
             haproxy-ingress.github.io/allowlist-source-range: 192.0.2.0/24 }}, resourceVersion: \"2\""
        );
        conf(&SHOP.replacen("resourceVersion: \"2\"", &annotations, 1).replace("path: /,", "path: /v1.0,"))
    };
    let conf = annotated("/");
    assert!(conf.contains("    http-request deny if !{ src 192.0.2.0/24 }\n"), "{conf}");
    assert!(conf.contains("    http-request replace-path ^/v1\\\\.0/?(.*)$ /\\1\n"), "{conf}");
    assert!(annotated("/api").contains("    http-request replace-path ^/v1\\\\.0(.*)$ /api\\1\n"));
}
