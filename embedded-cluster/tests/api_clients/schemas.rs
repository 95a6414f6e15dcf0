//! What tools learn of kinds: explanations, custom resources as they are published, measurements, lists in pages.

use serde_json::json;

use super::kubectl::{Kubectl, SHOP};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_are_explained() {
    let Some(kubectl) = Kubectl::new().await else { return };
    let text = kubectl.ok("explain pod.spec.containers.readinessProbe").await;
    assert!(text.contains("FIELD: readinessProbe <Probe>") && text.contains("failureThreshold\t<integer>"), "{text}");
    let text = kubectl.ok("explain ingress.spec.rules --recursive").await;
    assert!(text.contains("pathType\t<string> -required-"), "{text}");
    assert!(kubectl.ok("explain hpa.spec.behavior").await.contains("VERSION:    v2"));
    assert!(kubectl.refused("explain pod.spec.colour").await.contains("field \"colour\" does not exist"));
    let dry = kubectl.ok("apply -f shop.yaml --dry-run=server -o 'jsonpath={.items[0].spec.replicas}'").await;
    assert_eq!(dry, "2");
    std::fs::write(kubectl.path().join("typo.yaml"), SHOP.replace("replicas: 2", "replicaz: 2")).unwrap();
    let complaint = kubectl.refused("apply -f typo.yaml --dry-run=server").await;
    assert!(complaint.contains("unknown field \"spec.replicaz\""), "{complaint}");
    let ran = kubectl.run("apply -f typo.yaml --validate=warn").await;
    assert!(ran.err.contains("Warning: unknown field \"spec.replicaz\""), "{}", ran.err);
    // Whoever still reads version 2.
    let old: serde_json::Value = serde_json::from_str(&kubectl.ok("get --raw /openapi/v2").await).unwrap();
    assert!(old["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"].is_object());
    assert!(!old.to_string().contains("#/components/"));
}

async fn apply_gateway_api(kubectl: &Kubectl) {
    let packed = include_bytes!("../published/gateway-api-v1.3.0-standard.yaml.deflate");
    let mut bundle = vec![0; 2 << 20];
    let length = miniz_oxide::inflate::decompress_slice_iter_to_slice(&mut bundle, std::iter::once(&packed[..]), false, false).unwrap();
    std::fs::write(kubectl.path().join("gateway-api.yaml"), &bundle[..length]).unwrap();
    let applied = kubectl.run("apply --server-side -f gateway-api.yaml").await;
    assert_eq!(applied.out.lines().filter(|line| line.ends_with("serverside-applied")).count(), 5, "{}", applied.err);
    // Nothing in it is refused, and nothing is not evaluated.
    assert_eq!(applied.err, "");
    kubectl.ok("wait --for=condition=Established crd/httproutes.gateway.networking.k8s.io --timeout=10s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_api_is_accepted_as_published() {
    let Some(kubectl) = Kubectl::new().await else { return };
    apply_gateway_api(&kubectl).await;
    let resources = kubectl.ok("api-resources --api-group=gateway.networking.k8s.io").await;
    for (name, short) in
        [("gatewayclasses", "gc"), ("gateways", "gtw"), ("httproutes", ""), ("grpcroutes", ""), ("referencegrants", "refgrant")]
    {
        assert!(resources.contains(name) && resources.contains(short), "{resources}");
    }
    std::fs::write(
        kubectl.path().join("route.yaml"),
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shop, namespace: shop}
spec: {gatewayClassName: lab, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: shop}
spec:
  parentRefs: [{name: shop}]
  hostnames: [shop.example]
  rules: [{backendRefs: [{name: web, port: 80}]}]
",
    )
    .unwrap();
    kubectl.ok("apply -f route.yaml").await;
    // Defaults of the schema, printer columns, other versions of the same object.
    assert_eq!(kubectl.ok("get httproute shop -n shop -o 'jsonpath={.spec.rules[0].matches[0].path.type}'").await, "PathPrefix");
    assert!(kubectl.ok("get httproutes -n shop").await.contains("[\"shop.example\"]"));
    assert!(
        kubectl.ok("get httproutes.v1beta1.gateway.networking.k8s.io -n shop -o yaml").await.contains("gateway.networking.k8s.io/v1beta1")
    );
    assert!(kubectl.ok("explain httproute.spec.rules.timeouts").await.contains("backendRequest\t<string>"));
    let patch = |patch: &str| format!("patch httproute shop -n shop --type=merge -p '{patch}'");
    let complaint = kubectl.refused(&patch(r#"{"spec":{"hostnames":["Shop_"]}}"#)).await;
    assert!(complaint.contains("spec.hostnames[0]: Invalid value: \"Shop_\": spec.hostnames[0] in body should match '"), "{complaint}");
    let complaint = kubectl.refused(&patch(r#"{"spec":{"rules":[{"backendRefs":[{"port":80}]}]}}"#)).await;
    assert!(complaint.contains("spec.rules[0].backendRefs[0].name: Required value"), "{complaint}");
    let complaint = kubectl.refused(&patch(r#"{"spec":{"rules":[{"matches":[{"path":{"type":"Glob"}}]}]}}"#)).await;
    assert!(
        complaint.contains("Unsupported value: \"Glob\": supported values: \"Exact\", \"PathPrefix\", \"RegularExpression\""),
        "{complaint}"
    );
    // Two controllers write conditions of the same object and keep each other's.
    for (manager, kind) in [("one", "Accepted"), ("two", "Programmed")] {
        let status = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "shop", "namespace": "shop"},
            "status": {"conditions": [{"type": kind, "status": "True", "reason": "Lab", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}]}});
        let command = format!("apply --server-side --subresource=status --field-manager={manager} -f -");
        let ran = kubectl.run_with(&command, &status.to_string(), &[]).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    let conditions = kubectl.ok("get gateway shop -n shop -o 'jsonpath={.status.conditions[*].type}'").await;
    assert!(conditions.contains("Accepted") && conditions.contains("Programmed"), "{conditions}");
    kubectl.ok("delete -f gateway-api.yaml").await;
    // kubectl asks by what it remembers of discovery, or learns anew; either way there is no such thing any more.
    let complaint = kubectl.refused("get httproutes -n shop").await;
    assert!(
        complaint.contains("the server could not find the requested resource (get httproutes.gateway.networking.k8s.io)")
            || complaint.contains("doesn't have a resource type"),
        "{complaint}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_of_the_gateway_api_are_held() {
    let Some(kubectl) = Kubectl::new().await else { return };
    apply_gateway_api(&kubectl).await;
    let apply = |kind: &str, spec: serde_json::Value| {
        let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": "shop", "namespace": "shop"}, "spec": spec});
        let kubectl = &kubectl;
        async move { kubectl.run_with("apply -f -", &object.to_string(), &[]).await }
    };
    let route = |rule: serde_json::Value| apply("HTTPRoute", json!({"rules": [rule]}));
    let backend = json!([{"name": "web", "port": 80}]);
    let redirect = json!([{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]);
    // Each breaks one rule of the standard channel and nothing of its schema.
    for (rule, refusal) in [
        (
            json!({"backendRefs": backend, "filters": redirect}),
            "spec.rules[0]: Invalid value: \"object\": RequestRedirect filter must not be used together with backendRefs",
        ),
        (
            json!({"backendRefs": [{"name": "web"}]}),
            "spec.rules[0].backendRefs[0]: Invalid value: \"object\": Must have port for Service reference",
        ),
        (
            json!({"matches": [{"path": {"value": "shop"}}]}),
            "spec.rules[0].matches[0].path: Invalid value: \"object\": value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']",
        ),
        (
            json!({"filters": [redirect[0], redirect[0]]}),
            "spec.rules[0].filters: Invalid value: \"array\": RequestRedirect filter cannot be repeated",
        ),
        (
            json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}),
            "spec.rules[0].timeouts: Invalid value: \"object\": backendRequest timeout cannot be longer than request timeout",
        ),
    ] {
        let ran = route(rule).await;
        assert!(ran.code != 0 && ran.err.contains(refusal), "{}", ran.err);
        assert!(ran.err.starts_with("The HTTPRoute \"shop\" is invalid: "), "{}", ran.err);
    }
    let listener = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTP"});
    let gateway = |listeners: serde_json::Value| apply("Gateway", json!({"gatewayClassName": "lab", "listeners": listeners}));
    let ran = gateway(json!([listener("a", 80), listener("b", 80)])).await;
    let refusal = "spec.listeners: Invalid value: \"array\": Combination of port, protocol and hostname must be unique for each listener";
    assert!(ran.err.contains(refusal), "{}", ran.err);
    let ran = gateway(json!([listener("a", 80), listener("b", 81)])).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let good =
        json!({"backendRefs": backend, "matches": [{"path": {"value": "/shop"}}], "timeouts": {"request": "2s", "backendRequest": "1s"}});
    let ran = route(good).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    // What is patched and scaled is held to the rules as well, and so is what must not change.
    let patch = r#"patch httproute shop -n shop --type=json -p '[{"op":"remove","path":"/spec/rules/0/backendRefs/0/port"}]'"#;
    assert!(kubectl.refused(patch).await.contains("Must have port for Service reference"));
    let class = |controller: &str| json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "lab"}, "spec": {"controllerName": controller}});
    let ran = kubectl.run_with("apply --server-side -f -", &class("lab.test/one").to_string(), &[]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = kubectl.run_with("apply --server-side -f -", &class("lab.test/two").to_string(), &[]).await;
    assert!(ran.err.contains("spec.controllerName: Invalid value: \"string\": Value is immutable"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_definitions_are_told_of() {
    let Some(kubectl) = Kubectl::new().await else { return };
    let apply = |rule: &str| {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"size": {"type": "integer"}, "version": {"type": "string"}}, "x-kubernetes-validations": [{"rule": rule}]}}});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "boxes.lab.test"}, "spec": {"group": "lab.test", "scope": "Namespaced",
            "names": {"kind": "Box", "plural": "boxes"}, "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema}}]}});
        let kubectl = &kubectl;
        async move { kubectl.run_with("apply -f -", &definition.to_string(), &[]).await }
    };
    let ran = apply("self.colour == 'red'").await;
    assert!(ran.code != 0 && ran.err.contains("undefined field 'colour'"), "{}", ran.err);
    let ran = apply("semver(self.version).major() == 1").await;
    assert!(
        ran.code == 0 && ran.err.contains("Warning: ") && ran.err.contains("semver(), which this API server does not evaluate"),
        "{}",
        ran.err
    );
    let put = |size: u8| {
        let object =
            json!({"apiVersion": "lab.test/v1", "kind": "Box", "metadata": {"name": "b", "namespace": "shop"}, "spec": {"size": size}});
        let kubectl = &kubectl;
        async move { kubectl.run_with("apply -f -", &object.to_string(), &[]).await }
    };
    assert_eq!(put(3).await.code, 0);
    // The definition's next generation has other rules; what broke them before them stays until it is changed.
    assert_eq!(apply("self.size < 3").await.code, 0);
    let ran = put(4).await;
    assert!(ran.err.contains("spec: Invalid value: \"object\": failed rule: self.size < 3"), "{}", ran.err);
    let ran = kubectl.run("label box b -n shop colour=red").await;
    assert!(ran.code == 0 && ran.err.contains("Warning: spec: Invalid value: \"object\": failed rule: self.size < 3"), "{}", ran.err);
    assert_eq!(put(2).await.code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_of_cpu_and_memory_is_shown() {
    let Some(kubectl) = Kubectl::new().await else { return };
    kubectl.ok("apply -f shop.yaml").await;
    let top = kubectl.ok("top pods -n shop --containers --no-headers").await;
    let row = |name: &str| -> Vec<&str> { top.lines().find(|line| line.contains(name)).unwrap_or_default().split_whitespace().collect() };
    // The one that computes without end takes about a core, whatever else the machine does.
    let busy: u64 = row("busy")[2].trim_end_matches('m').parse().unwrap();
    assert!((500..2000).contains(&busy), "{top}");
    assert_eq!(row("idle")[2..], ["0m", "1Mi"], "{top}");
    assert!(kubectl.ok("top pods -n shop -l app=tools").await.contains("tools"));
    assert!(kubectl.refused("top pod web -n shop").await.contains("(NotFound)"));
    let complaint = kubectl.refused("top pods -n shop --as=jane").await;
    assert!(complaint.contains("cannot list resource \"pods\" in API group \"metrics.k8s.io\" in the namespace \"shop\""), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amounts_and_classes_are_as_kubernetes_writes_them() {
    let Some(kubectl) = Kubectl::new().await else { return };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"priorityClassName": "high",
        "containers": [{"name": "c", "image": "a:1", "resources": {"requests": {"cpu": 0.5, "memory": "1024Mi"}}}]}});
    let apply = |object: serde_json::Value| {
        let kubectl = &kubectl;
        async move { kubectl.run_with("apply -f -", &object.to_string(), &[]).await }
    };
    let refused = apply(pod.clone()).await;
    assert!(refused.err.contains("pods \"p\" is forbidden: no PriorityClass with name high was found"), "{}", refused.err);
    kubectl.ok("create priorityclass high --value=1000").await;
    assert_eq!(apply(pod).await.code, 0);
    assert_eq!(
        kubectl.ok("get pod p -n shop -o 'jsonpath={.spec.containers[0].resources.requests} {.spec.priority}'").await,
        r#"{"cpu":"500m","memory":"1Gi"} 1000"#
    );
    let complaint = kubectl.refused("run q -n shop --image=a:1 --overrides '{\"spec\":{\"serviceAccountName\":\"nobody\"}}'").await;
    assert!(complaint.contains("error looking up service account shop/nobody: serviceaccount \"nobody\" not found"), "{complaint}");
}
