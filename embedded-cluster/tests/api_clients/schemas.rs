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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_api_is_accepted_as_published() {
    let Some(kubectl) = Kubectl::new().await else { return };
    let packed = include_bytes!("../published/gateway-api-v1.3.0-standard.yaml.deflate");
    let mut bundle = vec![0; 2 << 20];
    let length = miniz_oxide::inflate::decompress_slice_iter_to_slice(&mut bundle, std::iter::once(&packed[..]), false, false).unwrap();
    std::fs::write(kubectl.path().join("gateway-api.yaml"), &bundle[..length]).unwrap();
    let applied = kubectl.ok("apply --server-side -f gateway-api.yaml").await;
    assert_eq!(applied.lines().filter(|line| line.ends_with("serverside-applied")).count(), 5, "{applied}");
    kubectl.ok("wait --for=condition=Established crd/httproutes.gateway.networking.k8s.io --timeout=10s").await;
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
