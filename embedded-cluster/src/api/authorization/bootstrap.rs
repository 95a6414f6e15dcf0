//! The roles and bindings that every cluster has from its first moment.

use serde_json::{Value, json};

use crate::controllers::aggregate_roles;
use crate::store::{Fault, Reason, Resource, Scope, Store};

/// Kubernetes 1.33's own (Apache License 2.0, `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata`), one object a
/// line, without those of identities that do not exist here: kube-controller-manager's loops, certificate signers.
const DEFAULTS: &str = include_str!("default_roles.json");

/// Stores Kubernetes' default roles and bindings.
///
/// # Errors
/// When the store refuses one.
pub fn create_default_roles(store: &Store) -> Result<(), Fault> {
    let defaults: Vec<Value> = serde_json::from_str(DEFAULTS).map_err(|error| Fault::new(Reason::Invalid, error.to_string()))?;
    for object in defaults.into_iter().chain([metrics_reader()]) {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
        let resource = Resource {
            group: "rbac.authorization.k8s.io".to_owned(),
            version: "v1".to_owned(),
            plural: format!("{}s", kind.to_lowercase()),
            kind,
            scope: if namespace.is_some() { Scope::Namespaced } else { Scope::Cluster },
        };
        store.create(&resource, namespace.as_deref(), object)?;
    }
    aggregate_roles(store);
    Ok(())
}

/// From metrics-server's own manifest: who may view may see `kubectl top`.
fn metrics_reader() -> Value {
    let labels: Value = ["admin", "edit", "view"]
        .into_iter()
        .map(|role| (format!("rbac.authorization.k8s.io/aggregate-to-{role}"), Value::from("true")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:aggregated-metrics-reader", "labels": labels},
        "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    })
}
