//! Objects for tests, from YAML as a person would apply it.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Objects;

/// The shop: one Service with two ready pods (and one that is not), one Ingress, one class.
pub(crate) const SHOP: &str = r#"
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: gateway, resourceVersion: "1", annotations: { ingressclass.kubernetes.io/is-default-class: "true" } }
spec: { controller: gatelab.dev/gateway-agent }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: shop, namespace: shop, resourceVersion: "2", uid: u2 }
spec:
  rules:
    - host: shop.test
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: shop, port: { number: 80 } } } }] }
---
apiVersion: v1
kind: Service
metadata: { name: shop, namespace: shop, resourceVersion: "3", uid: u3 }
spec: { ports: [{ name: http, port: 80, targetPort: http }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: shop-1, namespace: shop, resourceVersion: "4", labels: { kubernetes.io/service-name: shop } }
addressType: IPv4
ports: [{ name: http, port: 8080, protocol: TCP }]
endpoints:
  - { addresses: [10.244.1.3], conditions: { ready: true, serving: true, terminating: false } }
  - { addresses: [10.244.0.4], conditions: { ready: true, serving: true, terminating: false } }
  - { addresses: [10.244.0.5], conditions: { ready: false, serving: true, terminating: true } }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: gateway-settings, namespace: gateway, resourceVersion: "5", uid: u5 }
data: { settings.yaml: "" }
"#;

pub(crate) fn objects(yaml: &str) -> Objects {
    let mut objects = Objects::default();
    let documents: Vec<Value> = serde_saphyr::from_str_multiple(yaml).unwrap();
    for document in documents {
        fn read<K: DeserializeOwned>(document: Value) -> Arc<K> {
            Arc::new(serde_json::from_value(document).unwrap())
        }
        match document["kind"].as_str().unwrap() {
            "Ingress" => objects.ingresses.push(read(document)),
            "IngressClass" => objects.classes.push(read(document)),
            "Service" => objects.services.push(read(document)),
            "EndpointSlice" => objects.endpoint_slices.push(read(document)),
            "Secret" => objects.secrets.push(read(document)),
            "ConfigMap" => objects.settings = Some(read(document)),
            other => panic!("no objects of kind {other} here"),
        }
    }
    objects
}
