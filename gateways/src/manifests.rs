//! The Kubernetes objects that put a gateway into a cluster, embedded or not.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::GatewayKind;

/// Namespace of everything that belongs to the gateway.
pub const GATEWAY_NAMESPACE: &str = "gateway";
/// ConfigMap (in [`GATEWAY_NAMESPACE`]) with the gateway's settings.
pub const SETTINGS_CONFIG_MAP: &str = "gateway-settings";
/// Key of the YAML in [`SETTINGS_CONFIG_MAP`].
pub const SETTINGS_KEY: &str = "settings.yaml";
/// IngressClass that Ingresses name; it is also the cluster's default class.
pub const INGRESS_CLASS: &str = "gateway";
/// Name of Deployment, Service, ServiceAccount and roles.
const NAME: &str = "gateway";

/// How a gateway is put into a cluster.
#[derive(Debug, Clone)]
pub struct GatewayInstall {
    /// Image of the container, e.g. from [`crate::GatewayBuild::image`].
    pub image: String,
    /// Arguments for `gateway-agent` behind `--gateway`, e.g. from [`crate::GatewayBuild::agent_arguments`].
    pub agent_arguments: Vec<String>,
    /// YAML of [`crate::Settings`].
    pub settings: String,
    pub replicas: u32,
    pub node_selector: BTreeMap<String, String>,
    /// Node ports of the Service's ports, where the host reaches the gateway by fixed ones (kind); else the cluster chooses.
    pub node_ports: Option<NodePorts>,
    /// Annotations of the Service.
    pub service_annotations: BTreeMap<String, String>,
}

/// Ports of the nodes that lead to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePorts {
    pub http: u16,
    pub https: u16,
}

/// Label of the gateway's pods that tells gateways apart; scenarios' NetworkPolicies select by it.
pub(crate) fn pod_labels(kind: GatewayKind) -> Value {
    json!({ "app.kubernetes.io/name": kind.name(), "app.kubernetes.io/component": "controller" })
}

/// All objects, in the order in which they are to be applied.
pub fn manifests(kind: GatewayKind, install: &GatewayInstall) -> Vec<Value> {
    let mut objects = vec![
        json!({ "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": GATEWAY_NAMESPACE, "labels": { "kubernetes.io/metadata.name": GATEWAY_NAMESPACE } } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": in_namespace(NAME) }),
    ];
    objects.extend(roles(kind));
    objects.extend(kind.adapter().objects());
    objects.extend([
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": in_namespace(SETTINGS_CONFIG_MAP),
            "data": { SETTINGS_KEY: install.settings } }),
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": { "name": INGRESS_CLASS, "annotations": { "ingressclass.kubernetes.io/is-default-class": "true" } },
            "spec": { "controller": kind.controller() } }),
        service(kind, install),
        deployment(kind, install),
    ]);
    objects
}

fn service(kind: GatewayKind, install: &GatewayInstall) -> Value {
    let mut service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": in_namespace(NAME),
        "spec": { "type": "LoadBalancer", "selector": pod_labels(kind), "ports": [
            { "name": "http", "port": 80, "targetPort": "http", "protocol": "TCP" },
            { "name": "https", "port": 443, "targetPort": "https", "protocol": "TCP" },
        ] } });
    if let Some(ports) = install.node_ports {
        service["spec"]["ports"][0]["nodePort"] = ports.http.into();
        service["spec"]["ports"][1]["nodePort"] = ports.https.into();
    }
    if !install.service_annotations.is_empty() {
        service["metadata"]["annotations"] = json!(install.service_annotations);
    }
    service
}

fn in_namespace(name: &str) -> Value {
    json!({ "name": name, "namespace": GATEWAY_NAMESPACE })
}

/// What the agent reads, and the Events that it writes; what a gateway with a controller of its own needs besides; nothing else.
fn roles(kind: GatewayKind) -> [Value; 4] {
    let subject = json!([{ "kind": "ServiceAccount", "name": NAME, "namespace": GATEWAY_NAMESPACE }]);
    let read = ["get", "list", "watch"];
    let group = "rbac.authorization.k8s.io";
    let mut rules = vec![
        json!({ "apiGroups": [""], "resources": ["services", "secrets"], "verbs": read }),
        json!({ "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read }),
        json!({ "apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "ingressclasses"], "verbs": read }),
        json!({ "apiGroups": [""], "resources": ["events"], "verbs": ["create"] }),
    ];
    rules.extend(kind.adapter().cluster_rules());
    let mut own = vec![json!({ "apiGroups": [""], "resources": ["configmaps"], "verbs": read })];
    own.extend(kind.adapter().namespace_rules());
    [
        json!({ "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": { "name": NAME }, "rules": rules }),
        json!({ "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": NAME },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": NAME }, "subjects": subject }),
        json!({ "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": in_namespace(NAME), "rules": own }),
        json!({ "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": in_namespace(NAME),
            "roleRef": { "apiGroup": group, "kind": "Role", "name": NAME }, "subjects": subject }),
    ]
}

fn deployment(kind: GatewayKind, install: &GatewayInstall) -> Value {
    let mut command = vec!["/gatelab".to_owned(), "gateway-agent".to_owned(), "--gateway".to_owned(), kind.name().to_owned()];
    command.extend(install.agent_arguments.iter().cloned());
    let mut deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": NAME, "namespace": GATEWAY_NAMESPACE, "labels": pod_labels(kind) },
        "spec": {
            "replicas": install.replicas,
            "selector": { "matchLabels": pod_labels(kind) },
            "template": {
                "metadata": { "labels": pod_labels(kind) },
                "spec": {
                    "serviceAccountName": NAME,
                    "nodeSelector": install.node_selector,
                    // ingress-nginx's and Contour's manifests both give their gateway 300 s to drain. The agent itself drains on
                    // SIGTERM, which is what their preStop hooks (`/wait-shutdown`, `envoy shutdown`) are there for.
                    "terminationGracePeriodSeconds": 300,
                    "containers": [{
                        "name": "controller",
                        "image": install.image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": command,
                        "env": [
                            { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                            { "name": "POD_NAMESPACE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } },
                        ],
                        "ports": [
                            { "name": "http", "containerPort": 80, "protocol": "TCP" },
                            { "name": "https", "containerPort": 443, "protocol": "TCP" },
                            { "name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP" },
                        ],
                        // True once the first configuration is served. ingress-nginx asks every 10 s after 10 s; a lab is to be up
                        // within a second.
                        "readinessProbe": { "httpGet": { "path": "/healthz", "port": HEALTH_PORT }, "periodSeconds": 1, "timeoutSeconds": 1,
                            "failureThreshold": 3 },
                    }],
                },
            },
        } });
    if let Some(context) = kind.adapter().security_context() {
        deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"] = context;
    }
    deployment
}

/// Where the agent answers `/healthz`; ingress-nginx's port.
pub const HEALTH_PORT: u16 = 10254;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{envoy::KIND as ENVOY, nginx::KIND as NGINX, traefik::KIND as TRAEFIK};

    fn install() -> GatewayInstall {
        GatewayInstall {
            image: "gatelab/nginx:1.22.1".to_owned(),
            agent_arguments: vec!["--binary".to_owned(), "/opt/gateway/usr/sbin/nginx".to_owned()],
            settings: "connect-timeout: 500ms\n".to_owned(),
            replicas: 1,
            node_selector: BTreeMap::from([("kubernetes.io/hostname".to_owned(), "node-0".to_owned())]),
            node_ports: None,
            service_annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_service_has_the_node_ports_that_the_host_knows() {
        let ports = NodePorts { http: 30080, https: 30443 };
        let annotations = BTreeMap::from([("gatelab.dev/host-address".to_owned(), "http=127.0.0.1:1".to_owned())]);
        let install = GatewayInstall { node_ports: Some(ports), service_annotations: annotations, ..install() };
        let objects = manifests(NGINX, &install);
        let service = objects.iter().find(|object| object["kind"] == "Service").unwrap();
        assert_eq!(service["spec"]["ports"][0]["nodePort"], 30080);
        assert_eq!(service["spec"]["ports"][1]["nodePort"], 30443);
        assert_eq!(service["metadata"]["annotations"]["gatelab.dev/host-address"], "http=127.0.0.1:1");
    }

    #[test]
    fn the_objects() {
        insta::assert_yaml_snapshot!(manifests(NGINX, &install()));
    }

    #[test]
    fn traefik_may_read_what_its_provider_lists() {
        let text = |kind| serde_json::to_string(&manifests(kind, &install())).unwrap();
        assert!(text(TRAEFIK).contains("ingresses/status") && text(TRAEFIK).contains("nodes"));
        assert!(text(TRAEFIK).contains("traefik.io/ingress-controller"));
        assert!(!text(NGINX).contains("ingresses/status"));
    }

    #[test]
    fn every_object_is_what_the_typed_api_expects() {
        use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service, networking::v1::IngressClass};
        for object in manifests(ENVOY, &install()) {
            match object["kind"].as_str() {
                Some("Deployment") => drop(serde_json::from_value::<Deployment>(object).unwrap()),
                Some("Service") => drop(serde_json::from_value::<Service>(object).unwrap()),
                Some("IngressClass") => drop(serde_json::from_value::<IngressClass>(object).unwrap()),
                _ => {}
            }
        }
    }
}
