use std::path::Path;

use serde_json::Value;

use super::{
    KIND,
    resources::{CDS, Layout, render, resources_of},
};
use crate::{
    agent::Files,
    model::{
        build,
        fixtures::{SHOP, objects},
    },
};

fn files(yaml: &str) -> Files {
    let layout = Layout { state: "/tmp/gateway".into(), http_port: 80, https_port: 443, admin_port: 9901 };
    render(&build(KIND, &objects(yaml)), &layout)
}

fn with_settings(settings: &str) -> Files {
    files(&SHOP.replace("settings.yaml: \"\"", &format!("settings.yaml: \"{settings}\"")))
}

fn cluster(files: &Files) -> Value {
    resources_of(&files[Path::new(CDS)]).remove(0)
}

fn route(files: &Files) -> Value {
    resources_of(&files[Path::new("rds-ingress_http.json")]).remove(0)["virtual_hosts"][0]["routes"][0].clone()
}

#[test]
fn defaults() {
    let files = files(SHOP);
    let text: String = files.iter().map(|(name, content)| format!("== {}\n{content}", name.display())).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn endpoints_are_no_part_of_the_cluster() {
    let (two, none) = (files(SHOP), files(&SHOP.replace("ready: true", "ready: false")));
    assert_eq!(two[Path::new(CDS)], none[Path::new(CDS)]);
    assert_ne!(two, none);
}

#[test]
fn passive_checks_take_a_server_out() {
    assert_eq!(cluster(&files(SHOP))["outlier_detection"], serde_json::Value::Null);
    insta::assert_json_snapshot!(cluster(&with_settings("{passive-checks: {failures: 2, ejection-time: 3s}}"))["outlier_detection"], @r#"
    {
      "consecutive_gateway_failure": 2,
      "enforcing_consecutive_gateway_failure": 100,
      "base_ejection_time": "3s",
      "interval": "3s",
      "max_ejection_percent": 100
    }
    "#);
}

#[test]
fn settings_become_fields() {
    let files = with_settings(
        "{connect-timeout: 500ms, read-timeout: 1s, idle-timeout: 3s, keepalive: {requests: 8, time: 9s}, \
         retries: {tries: 3, on: [error, http-502], per-try-timeout: 250ms}, buffers: {response-header: 8k}}",
    );
    let cluster = cluster(&files);
    assert_eq!(cluster["connect_timeout"], "0.5s");
    let options = &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    insta::assert_json_snapshot!(options["common_http_protocol_options"], @r#"
    {
      "idle_timeout": "3s",
      "max_requests_per_connection": 8,
      "max_connection_duration": "9s",
      "max_response_headers_kb": 8
    }
    "#);
    insta::assert_json_snapshot!(route(&files)["route"]["retry_policy"], @r#"
    {
      "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
      "num_retries": 2,
      "retriable_status_codes": [
        502
      ],
      "per_try_timeout": "0.25s"
    }
    "#);
    assert_eq!(route(&files)["route"]["timeout"], "1s");
}

#[test]
fn no_retries_unless_asked_for() {
    assert_eq!(route(&files(SHOP))["route"]["retry_policy"], Value::Null);
    assert_eq!(route(&with_settings("{retries: {tries: 1, on: [error]}}"))["route"]["retry_policy"], Value::Null);
}

#[test]
fn other_settings_are_another_cluster() {
    assert_ne!(cluster(&files(SHOP))["name"], cluster(&with_settings("{connect-timeout: 1s}"))["name"]);
    assert_eq!(cluster(&files(SHOP))["name"], cluster(&with_settings("{read-timeout: 1s}"))["name"]);
}

#[test]
fn protocols() {
    let tls = cluster(&with_settings("{backend-protocol: HTTPS, tls: {verify: true, name: shop.internal}}"));
    let context = &tls["transport_socket"]["typed_config"];
    assert_eq!(context["sni"], "shop.internal");
    assert_eq!(
        context["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"][0]["matcher"]["exact"],
        "shop.internal"
    );
    let h2c = cluster(&with_settings("{backend-protocol: H2C}"));
    assert!(h2c.to_string().contains("http2_protocol_options") && h2c["transport_socket"].is_null());
}

#[test]
fn a_route_without_service_is_left_out() {
    let files = files(&SHOP.replace("service: { name: shop,", "service: { name: store,"));
    assert_eq!(route(&files), Value::Null);
}

#[test]
fn snippets_are_merged() {
    let files = with_settings("{snippets: {envoy: {cluster: {lb_policy: RANDOM}, route: {prefix_rewrite: /x}}}}");
    assert_eq!(cluster(&files)["lb_policy"], "RANDOM");
    assert_eq!(cluster(&files)["type"], "EDS");
    assert_eq!(route(&files)["route"]["prefix_rewrite"], "/x");
}

#[test]
fn an_external_name_is_a_cluster_that_envoy_looks_up() {
    let external = SHOP.replace(
        "spec: { ports: [{ name: http, port: 80, targetPort: http }] }",
        "spec: { type: ExternalName, externalName: stock.warehouse.svc.cluster.local, ports: [{ name: http, port: 80 }] }",
    );
    let files = files(&external.replace("settings.yaml: \"\"", "settings.yaml: \"{dns: {valid: 1s, timeout: 700ms}}\""));
    let cluster = cluster(&files);
    assert_eq!((&cluster["type"], &cluster["dns_refresh_rate"]), (&Value::from("STRICT_DNS"), &Value::from("1s")));
    assert_eq!(cluster["load_assignment"]["cluster_name"], cluster["name"]);
    assert_eq!(cluster["typed_dns_resolver_config"]["typed_config"]["query_timeout_seconds"], 1);
    let address = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"];
    assert_eq!((&address["address"], &address["port_value"]), (&Value::from("stock.warehouse.svc.cluster.local"), &Value::from(80)));
    assert!(cluster["eds_cluster_config"].is_null() && !files.keys().any(|name| name.starts_with("eds")), "{files:?}");
}

#[test]
fn a_path_is_rewritten_and_sources_are_allowed_as_contour_does_it() {
    let annotated = |target: &str| {
        let annotations = format!(
            "annotations: {{ gatelab.dev/rewrite-target: {target}, gatelab.dev/allow-sources: '[192.0.2.0/24]' }}, resourceVersion: \"2\""
        );
        route(&files(&SHOP.replacen("resourceVersion: \"2\"", &annotations, 1).replace("path: /,", "path: /v1.0,")))
    };
    let root = annotated("/");
    assert_eq!(root["route"]["regex_rewrite"]["pattern"]["regex"], "^/v1\\.0/*");
    let policy = &root["typed_per_filter_config"]["envoy.filters.http.rbac"]["rbac"]["rules"]["policies"]["ip-rules"];
    assert_eq!(policy["principals"][0]["remote_ip"]["address_prefix"], "192.0.2.0");
    assert_eq!(annotated("/api")["route"]["prefix_rewrite"], "/api");
}
