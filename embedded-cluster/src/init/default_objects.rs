//! What every cluster has from its first moment: namespaces, the Service of the API itself, the cluster DNS.

use std::net::Ipv4Addr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};

use crate::store::{Fault, Resource, Store};

/// ClusterIP of `kubernetes.default`, and of `kube-dns.kube-system`, as kubeadm sets them.
const KUBERNETES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub(super) const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// `api` and `port`: where the API server listens in the cluster's network.
pub(super) fn create(store: &Store, api: Ipv4Addr, port: u16, cluster_dns: bool) -> Result<(), Fault> {
    let namespaces = Resource::of::<Namespace>();
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        let labels = json!({"kubernetes.io/metadata.name": name});
        store.create(
            &namespaces,
            None,
            json!({"metadata": {"name": name, "labels": labels}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        )?;
    }
    crate::api::create_default_roles(store)?;
    priority_classes(store)?;
    // The Node authorizer's part, as far as kubelets ask for anything here: they renew Leases.
    let binding = json!({
        "metadata": {"name": "gatelab:nodes"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
    });
    store.create(&Resource::of::<ClusterRoleBinding>(), None, binding)?;
    kubernetes_service(store, api, port)?;
    if cluster_dns { dns(store) } else { Ok(()) }
}

/// As `scheduling.SystemPriorityClasses`.
fn priority_classes(store: &Store) -> Result<(), Fault> {
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        ("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
    ] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        store.create(&Resource::of::<PriorityClass>(), None, class)?;
    }
    Ok(())
}

/// kube-apiserver publishes itself: a Service without selector, its endpoints written by hand.
fn kubernetes_service(store: &Store, api: Ipv4Addr, port: u16) -> Result<(), Fault> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": KUBERNETES,
            "clusterIPs": [KUBERNETES],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    });
    store.create(&Resource::of::<Service>(), Some("default"), service)?;
    let slice = json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [api], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    store.create(&Resource::of::<EndpointSlice>(), Some("default"), slice)?;
    let endpoints = json!({
        // Keeps the mirroring of hand-written Endpoints into slices away, as kube-apiserver does.
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": api}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    store.create(&Resource::of::<Endpoints>(), Some("default"), endpoints).map(drop)
}

/// Names as in kubeadm's CoreDNS add-on, where people look for them.
fn dns(store: &Store) -> Result<(), Fault> {
    let system = Some("kube-system");
    store.create(&Resource::of::<ServiceAccount>(), system, json!({"metadata": {"name": "coredns"}}))?;
    let role = json!({
        "metadata": {"name": "system:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    });
    store.create(&Resource::of::<ClusterRole>(), None, role)?;
    let binding = json!({
        "metadata": {"name": "system:coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
    });
    store.create(&Resource::of::<ClusterRoleBinding>(), None, binding)?;
    let selector = json!({"k8s-app": "kube-dns"});
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    let service = json!({
        "metadata": {"name": "kube-dns", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": CLUSTER_DNS,
            "clusterIPs": [CLUSTER_DNS],
            "selector": selector,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    });
    store.create(&Resource::of::<Service>(), system, service)?;
    store.create(&Resource::of::<Deployment>(), system, deployment(&selector)).map(drop)
}

fn deployment(selector: &Value) -> Value {
    json!({
        "metadata": {"name": "coredns", "labels": selector},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": selector},
                "spec": {
                    "serviceAccountName": "coredns",
                    "priorityClassName": "system-cluster-critical",
                    // The node's own resolver: the cluster's would be the pod itself.
                    "dnsPolicy": "Default",
                    "containers": [{
                        "name": "coredns",
                        "image": "gatelab/lab:dev",
                        "args": ["cluster-dns"],
                        "ports": [
                            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                        ],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                    }],
                },
            },
        },
    })
}
