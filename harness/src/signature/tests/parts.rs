use std::sync::Arc;

use rstest::rstest;
use serde_json::json;

use super::*;
use crate::probe::record::{ConnectionUse, GrpcEnd, WebSocketUse};
use crate::scenario::{Hop, Maker};
use crate::signature::client::answers_as;
use crate::signature::maker::maker;
use crate::signature::observation::{TimelineEvent, TimelineKind};
use crate::signature::{evaluate, is_vacuous};

/// Four requests: two fail, two are served.
fn mixed() -> Observations {
    seen(vec![request(1, 0, 502, 5), request(2, 100, 200, 7), request(3, 200, 502, 9), request(4, 300, 200, 700)])
}

#[rstest]
#[case("{ status: 502 }", &["client.home.status"])]
#[case("{ status: { 502: '>0', 200: rest } }", &[])]
#[case("{ status: { 502: '>2', 200: rest } }", &["client.home.status"])]
#[case("{ status: { 502: some } }", &["client.home.status"])]
#[case("{ failures: 50% }", &[])]
#[case("{ failures: none }", &["client.home.failures"])]
#[case("{ within: 700ms, at-least: 5ms }", &[])]
#[case("{ within: 0.5 x $read-timeout }", &["client.home.within"])]
#[case("{ at-least: 6ms }", &["client.home.at-least"])]
#[case("{ made-by: gateway }", &["client.home.made-by"])]
#[case("{ failed: { made-by: gateway, within: 10ms } }", &[])]
#[case("{ failed: { made-by: application } }", &["client.home.failed.made-by"])]
#[case("{ served-by: shop }", &["client.home.served-by"])]
#[case("{ headers: { x-app: shop } }", &["client.home.headers.x-app"])]
#[case("{ reused: none }", &[])]
#[case("{ reused: some }", &["client.home.reused"])]
#[case("{ outcome: { answered: all } }", &[])]
#[case("{ outcome: { reset: some } }", &["client.home.outcome.reset"])]
fn what_the_client_met(#[case] client: &str, #[case] expected: &[&str]) {
    let expectation = expectation(&format!("client: {{ home: {client} }}"));
    assert_eq!(unmet(&evaluate(&expectation, &mixed())), expected);
}

/// What a wait for good answers takes for good: what the controls will want, where they say it.
#[rstest]
#[case("{ status: 200 }", 200, true)]
#[case("{ status: 200 }", 404, false)]
#[case("{ status: 404 }", 404, true)]
#[case("{ status: 404 }", 200, false)]
#[case("{ status: 502 }", 502, true)]
#[case("{ status: { 200: some, 404: rest } }", 404, true)]
#[case("{ status: { 200: some, 404: rest } }", 403, false)]
#[case("{ status: { 200: some, 503: rest } }", 503, false)]
#[case("{ served-by: shop }", 200, true)]
#[case("{ served-by: stock }", 200, false)]
#[case("{ within: 1s }", 404, true)]
#[case("{ within: 1s }", 502, false)]
#[case("{ grpc-status: none }", 200, true)]
#[case("{ grpc-status: 0 }", 200, false)]
fn one_answer_is_as_the_controls_want_it(#[case] client: &str, #[case] status: u16, #[case] good: bool) {
    let expectation = expectation(&format!("client: {{ home: {client} }}"));
    assert_eq!(answers_as(Some(&expectation.parts.client["home"].value), &request(1, 0, status, 5)), good);
}

#[test]
fn one_answer_that_nothing_is_said_of_is_good_without_a_gateways_error() {
    assert!(answers_as(None, &request(1, 0, 404, 5)) && !answers_as(None, &request(1, 0, 502, 5)) && !answers_as(None, &reset(1, 0)));
    let expectation = expectation("client: { home: { outcome: { reset: all } } }");
    assert!(answers_as(Some(&expectation.parts.client["home"].value), &reset(1, 0)));
}

#[test]
fn a_status_that_is_not_listed_is_not_passed_over() {
    let mut observations = mixed();
    observations.requests.get_mut("home").unwrap().push(reset(5, 400));
    let statuses = expectation("client: { home: { status: { 502: some, 200: rest } } }");
    assert_eq!(unmet(&evaluate(&statuses, &observations)), ["client.home.status"]);
    let both = expectation("client: { home: { status: { 502: some, 200: rest }, outcome: { reset: 1 } } }");
    assert!(unmet(&evaluate(&both, &observations)).is_empty());
}

#[test]
fn no_request_meets_nothing() {
    for client in ["{ status: { 200: rest, 502: none } }", "{ failures: none }"] {
        let expectation = expectation(&format!("client: {{ home: {client} }}"));
        assert_eq!(unmet(&evaluate(&expectation, &Observations::default())), ["client.home.requests"]);
    }
}

#[test]
fn failed_requests_that_are_described_have_to_be_there() {
    let expectation = expectation("client: { home: { failed: { made-by: gateway } } }");
    assert_eq!(unmet(&evaluate(&expectation, &seen(vec![request(1, 0, 200, 5)]))), ["client.home.failed"]);
}

#[test]
fn failures_are_counted_by_gap() {
    let gap = |number, millis: u64, status| Record { gap: Some(Micros(millis * 1000)), ..request(number, 0, status, 1) };
    let observations = seen(vec![request(0, 0, 502, 1), gap(1, 40, 200), gap(2, 120, 502), gap(3, 120, 200), gap(4, 200, 200)]);
    let rows = |rows: &str| expectation(&format!("client: {{ home: {{ by-gap: [{rows}] }} }}"));
    let right = rows("{ from: 30ms, to: 50ms, failures: none }, { from: 110ms, to: 130ms, failures: 50% }");
    assert!(unmet(&evaluate(&right, &observations)).is_empty());
    assert_eq!(unmet(&evaluate(&rows("{ from: 110ms, to: 130ms, failures: none }"), &observations)), ["client.home.by-gap.110ms..130ms"]);
    // The request that warmed the connection up had no gap and is in no row; a row without requests is never met.
    assert_eq!(unmet(&evaluate(&rows("{ from: 0, to: 10ms, failures: none }"), &observations)), ["client.home.by-gap.0s..10ms"]);
    // One that was woken after the row's end is left out.
    let late = Record { paused: Some(Micros(131_000)), ..gap(5, 120, 502) };
    assert!(unmet(&evaluate(&rows("{ from: 110ms, to: 130ms, failures: none }"), &seen(vec![gap(3, 120, 200), late]))).is_empty());
}

#[test]
fn used_connections_are_counted() {
    let address = "127.0.0.1:80".parse().unwrap();
    let over = |number, before| {
        let connection = ConnectionUse { id: 0, requests_before: before, local: address, remote: address };
        Record { connection: Some(connection), ..request(number, 0, 200, 1) }
    };
    let expectation = expectation("client: { home: { reused: 50% } }");
    assert!(unmet(&evaluate(&expectation, &seen(vec![over(1, 0), over(2, 1)]))).is_empty());
}

#[rstest]
#[case("{ errno: ECONNREFUSED, while: connecting to upstream }", true)]
#[case("{ errno: 111 }", true)]
#[case("{ errno: ETIMEDOUT }", false)]
#[case("{ errno: ECONNREFUSED, while: reading response header from upstream }", false)]
#[case("{ errno: ECONNREFUSED, level: warn }", false)]
#[case("{ status: 502, upstream-status: ['502', '-'] }", true)]
#[case("{ status: 502, upstream-status: ['502'] }", false)]
#[case("{ response-flags: [UF], response-code-details: { prefix: upstream_reset } }", true)]
#[case("{ response-flags: [UF, URX] }", false)]
#[case("{ response-flags: [] }", false)]
#[case("{ response-flags: [UF], of: home, count: 1 }", true)]
#[case("{ response-flags: [UF], of: home, count: all }", false)]
#[case("{ errno: ECONNREFUSED, count: 2 }", true)]
#[case("{ errno: ECONNREFUSED, of: home }", false)]
fn what_the_gateway_wrote(#[case] log: &str, #[case] met: bool) {
    let mut observations = mixed();
    observations.gateway_log = vec![
        // Not joined to a request of this probe.
        line(None, nginx_error(111, "connecting to upstream")),
        line(Some(77), nginx_error(111, "connecting to upstream")),
        line(Some(1), nginx_access("502, -", false)),
        line(Some(3), envoy(503, &["UF"], "upstream_reset_before_response_started{connection_failure}")),
        line(Some(2), None),
    ];
    let items = evaluate(&expectation(&format!("log: {log}")), &observations);
    assert_eq!(items[0].met, met, "{items:?}");
}

#[test]
fn what_is_there_instead_of_the_line_is_told() {
    let mut observations = mixed();
    observations.gateway_log = vec![line(Some(1), nginx_error(110, "connecting to upstream"))];
    let items = evaluate(&expectation("log: { errno: ECONNREFUSED }"), &observations);
    insta::assert_snapshot!(format!("{} | {}", items[0].expected, items[0].observed),
        @"errno ECONNREFUSED, >0 lines | no such line; there is `connect() failed (ETIMEDOUT) while connecting to upstream`");
}

#[rstest]
#[case("{ requests-seen: 2 }", &[])]
#[case("{ requests-seen: none }", &["backend.home.requests-seen"])]
#[case("{ seen-by: { shop: 50% } }", &[])]
#[case("{ seen-by: { shop: all, stock: some } }", &["backend.home.seen-by.shop", "backend.home.seen-by.stock"])]
#[case("{ requests-seen: 50%, ended: { completed: 1, client-closed: 1 } }", &[])]
#[case("{ ended: { completed: all } }", &["backend.home.ended.completed"])]
#[case("{ connections: { idle-closed: '>0' } }", &[])]
#[case("{ connections: { idle-closed: none } }", &["backend.home.connections.idle-closed"])]
fn what_the_application_wrote(#[case] backend: &str, #[case] expected: &[&str]) {
    let mut observations = mixed();
    // Request 2 twice (a retry), one of somebody else, one connection.
    observations.journal = vec![
        journal(Some(2), "completed"),
        journal(Some(4), "client_closed"),
        journal(Some(99), "completed"),
        journal(None, "idle_closed"),
    ];
    let expectation = expectation(&format!("backend: {{ home: {backend} }}"));
    assert_eq!(unmet(&evaluate(&expectation, &observations)), expected);
}

#[test]
fn a_retried_request_is_seen_once() {
    let mut observations = mixed();
    observations.journal = vec![journal(Some(2), "completed"), journal(Some(2), "completed")];
    assert!(unmet(&evaluate(&expectation("backend: { home: { requests-seen: 1 } }"), &observations)).is_empty());
}

#[rstest]
#[case("/", true)]
#[case("{ prefix: /orders }", false)]
fn the_path_that_arrived_is_the_journals(#[case] path: &str, #[case] met: bool) {
    let mut observations = mixed();
    observations.journal = vec![journal(Some(2), "completed"), journal(Some(9), "completed")];
    for (entry, path) in observations.journal.iter_mut().zip(["/", "/of-somebody-else"]) {
        entry.entry = json!({ "path": path });
    }
    let expected = expectation(&format!("backend: {{ home: {{ path: {path} }} }}"));
    assert_eq!(unmet(&evaluate(&expected, &observations)).is_empty(), met);
    observations.journal.clear();
    assert_eq!(unmet(&evaluate(&expected, &observations)), ["backend.home.path"], "nothing arrived: nothing is proven");
}

#[rstest]
#[case("{ object: Service/shop, path: spec.selector.app, equals: shop }", true)]
#[case("{ object: Service/shop, path: spec.selector.app, not-equals: shop }", false)]
#[case("{ object: Service/other, path: spec.selector.app, equals: shop }", false)]
#[case("{ object: Pod, selects: { service: shop }, count: 1 }", true)]
#[case("{ object: Pod, count: 2 }", true)]
#[case("{ object: Pod, selects: { labels: { app: web } }, path: 'status.conditions[Ready].status', equals: 'True' }", false)]
#[case("{ object: Pod, path: 'status.conditions[Ready].status', equals: 'True' }", false)]
#[case("{ object: Pod, path: 'status.conditions[Ready].status', equals: 'True', holds-for: 50% }", true)]
#[case("{ object: EndpointSlice, selects: { service: shop }, path: 'endpoints[*].addresses[*]', count: none }", true)]
#[case("{ object: EndpointSlice, path: 'ports[0].port', equals: 8081 }", true)]
#[case("{ object: EndpointSlice, path: 'ports[0].port', text: { prefix: '80' } }", true)]
#[case("{ object: NetworkPolicy, count: none }", true)]
#[case("{ object: NetworkPolicy, path: spec, equals: 1 }", false)]
#[case("{ object: Deployment/gateway/gateway, count: 1 }", true)]
#[case("{ object: Deployment, count: none }", true)]
#[case("{ object: Node, path: metadata.name }", true)]
#[case("{ object: Pod, selects: { fields: { metadata.labels.app: web } }, count: 1 }", true)]
#[case(
    "{ object: Event, selects: { fields: { reason: Unhealthy, involvedObject.kind: Pod } }, path: message, text: { prefix: Readiness } }",
    true
)]
#[case("{ object: Event, selects: { fields: { reason: Killing } }, path: message }", false)]
#[case("{ object: Event, selects: { fields: { reason: Unhealthy, count: '3' } }, count: 1 }", true)]
fn what_the_objects_say(#[case] object: &str, #[case] met: bool) {
    let pod = |name: &str, app: &str, ready: &str| {
        json!({ "kind": "Pod", "metadata": { "name": name, "namespace": "shop", "labels": { "app": app } },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] } })
    };
    let observations = Observations {
        objects: [
            json!({ "kind": "Service", "metadata": { "name": "shop", "namespace": "shop" }, "spec": { "selector": { "app": "shop" } } }),
            pod("a", "shop", "True"),
            pod("b", "web", "False"),
            json!({ "kind": "EndpointSlice", "metadata": { "name": "shop-x", "namespace": "shop",
                "labels": { "kubernetes.io/service-name": "shop" } }, "endpoints": null, "ports": [{ "port": 8081 }] }),
            json!({ "kind": "Deployment", "metadata": { "name": "gateway", "namespace": "gateway" } }),
            json!({ "kind": "Node", "metadata": { "name": "node-1" } }),
            json!({ "kind": "Event", "metadata": { "name": "a.1", "namespace": "shop" }, "reason": "Unhealthy", "count": 3,
                "involvedObject": { "kind": "Pod" }, "message": "Readiness probe failed" }),
        ]
        .map(Arc::new)
        .to_vec(),
        ..Observations::default()
    };
    let items = evaluate(&expectation(&format!("kubernetes: [{object}]")), &observations);
    assert_eq!(items[0].met, met, "{items:?}");
}

#[rstest]
#[case("{ failures-of: home, line-up-with: pod-terminating, within: 50ms }", true)]
#[case("{ failures-of: home, line-up-with: [pod-ready, pod-terminating], within: 50ms }", true)]
#[case("{ failures-of: home, line-up-with: pod-ready, within: 50ms }", false)]
#[case("{ failures-of: home, line-up-with: pod-terminating, within: 5ms }", false)]
#[case("{ failures-of: home, line-up-with: pod-terminating, within: 5ms, share: 50% }", true)]
fn failures_line_up_with_pods(#[case] order: &str, #[case] met: bool) {
    let mut observations = mixed();
    let event = |millis, kind| TimelineEvent { at: moment(millis), kind, object: "Pod/shop-a".to_owned() };
    // Failures are from 0 to 5 and from 200 to 209.
    observations.timeline =
        vec![event(2, TimelineKind::PodTerminating), event(170, TimelineKind::PodTerminating), event(9000, TimelineKind::PodReady)];
    let items = evaluate(&expectation(&format!("order: [{order}]")), &observations);
    assert_eq!(items[0].met, met, "{items:?}");
}

#[test]
fn failures_that_are_not_there_line_up_with_nothing() {
    let expectation = expectation("order: [{ failures-of: home, line-up-with: pod-terminating, within: 1s }]");
    assert!(!is_vacuous(&expectation, &seen(vec![request(1, 0, 200, 1)])));
}

#[test]
fn hops_have_to_have_been_tried() {
    let expectation = expectation("first-failing-hop: service -> pod");
    assert_eq!(unmet(&evaluate(&expectation, &mixed())), ["first-failing-hop"]);
    let seen = Observations { first_failing_hop: Some(Hop::ServiceToPod), ..mixed() };
    assert!(unmet(&evaluate(&expectation, &seen)).is_empty());
}

#[test]
fn who_made_an_answer() {
    let with = |headers: &[(&str, &str)], body: &str, log: Vec<Option<LogRecord>>| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let record = Record { headers, body: body.to_owned(), ..request(1, 0, 502, 1) };
        let gateway_log = log.into_iter().map(|record| line(Some(1), record)).collect();
        maker(&record, &Observations { gateway_log, ..seen(vec![record.clone()]) })
    };
    assert_eq!(with(&[("x-app", "shop")], "", Vec::new()), Maker::Application);
    assert_eq!(with(&[("server", "istio-envoy")], "", Vec::new()), Maker::Sidecar);
    assert_eq!(with(&[], "", Vec::new()), Maker::Gateway);
    assert_eq!(with(&[], "", vec![envoy(502, &[], "via_upstream")]), Maker::Application);
    assert_eq!(with(&[], "no healthy upstream", vec![envoy(502, &[], "via_upstream")]), Maker::Sidecar);
    assert_eq!(with(&[], "", vec![envoy(502, &["UPE"], "upstream_reset_before_response_started{protocol_error}")]), Maker::Gateway);
    // nginx writes its own 502 into $upstream_status; that no header was read from the upstream tells them apart.
    assert_eq!(with(&[], "", vec![nginx_access("502", true)]), Maker::Application);
    assert_eq!(with(&[], "", vec![nginx_access("502", false)]), Maker::Gateway);
    assert_eq!(with(&[], "", vec![nginx_access("-", false)]), Maker::Gateway);
    let none = reset(1, 0);
    assert_eq!(maker(&none, &seen(vec![none.clone()])), Maker::Nobody);
}

#[test]
fn grpc_calls_are_told_by_their_status_and_not_by_http() {
    let ended = |status: Option<u16>| Record { grpc: Some(GrpcEnd { status, message: None }), ..request(1, 0, 200, 1) };
    let expected = expectation("client: { home: { status: 200, grpc-status: UNAVAILABLE, failures: all } }");
    assert_eq!(unmet(&evaluate(&expected, &seen(vec![ended(Some(14))]))), [""; 0]);
    assert_eq!(unmet(&evaluate(&expected, &seen(vec![ended(Some(0))]))), ["client.home.failures", "client.home.grpc-status"]);
    let none = expectation("client: { home: { grpc-status: none } }");
    assert_eq!(unmet(&evaluate(&none, &seen(vec![ended(None)]))), [""; 0]);
    assert_eq!(unmet(&evaluate(&none, &seen(vec![ended(Some(14))]))), ["client.home.grpc-status"]);
}

#[test]
fn websockets_are_told_by_echo_and_close_code() {
    let used = |echo: Option<Micros>, close_code| Record {
        websocket: Some(WebSocketUse { echo, close_code, ..WebSocketUse::default() }),
        ..request(1, 0, 101, 1)
    };
    let expected = expectation("client: { home: { status: 101, echoed: all, close-code: 1006 } }");
    assert_eq!(unmet(&evaluate(&expected, &seen(vec![used(Some(Micros(5)), Some(1006))]))), [""; 0]);
    assert_eq!(unmet(&evaluate(&expected, &seen(vec![used(None, Some(1000))]))), ["client.home.close-code", "client.home.echoed"]);
}
