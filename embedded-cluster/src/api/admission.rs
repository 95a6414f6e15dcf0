//! What kube-apiserver's admission plugins do that the lab needs: namespaces must exist, pods get a service account, a priority, and what
//! LimitRanges say; the store itself does so for controllers, and holds quotas.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::route::Target;
use super::status::Refusal;
use crate::store::{Resource, Store};

/// Plugin NamespaceLifecycle.
///
/// # Errors
/// 404 when the namespace of a new object does not exist.
pub(super) fn namespace_exists(store: &Store, target: &Target) -> Result<(), Refusal> {
    let Some(namespace) = target.namespace() else { return Ok(()) };
    match store.get(&Resource::of::<Namespace>(), None, namespace) {
        Ok(_) => Ok(()),
        Err(_) => {
            let mut refusal = Refusal::new(404, "NotFound", format!("namespaces \"{namespace}\" not found"));
            refusal.details = Some(json!({"name": namespace, "kind": "namespaces"}));
            Err(refusal)
        }
    }
}

/// Plugins ServiceAccount (the token volume is the kubelet's affair), Priority and LimitRanger.
///
/// # Errors
/// 403 for a service account or a priority class that does not exist, and for what is out of a LimitRange's bounds.
pub(super) fn admit(store: &Store, kind: &Kind, namespace: Option<&str>, object: &mut Value) -> Result<(), Refusal> {
    if !kind.is("", "pods") {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let refuse = |why: String| {
        let refusal = Refusal::new(403, "Forbidden", format!("pods \"{name}\" is forbidden: {why}"));
        Err(refusal.about(kind, Some(&name)))
    };
    let spec = &mut object["spec"];
    let account = spec["serviceAccountName"].as_str().filter(|s| !s.is_empty()).unwrap_or("default").to_owned();
    // A namespace's own `default` may be a moment behind its namespace; kube-apiserver waits for that one.
    if account != "default" && store.get(&Resource::of::<ServiceAccount>(), namespace, &account).is_err() {
        let home = namespace.unwrap_or_default();
        return refuse(format!("error looking up service account {home}/{account}: serviceaccount \"{account}\" not found"));
    }
    spec["serviceAccount"] = account.clone().into();
    spec["serviceAccountName"] = account.into();
    let classes = Resource::of::<PriorityClass>();
    let class = match spec["priorityClassName"].as_str().filter(|s| !s.is_empty()) {
        Some(wanted) => match store.get(&classes, None, wanted) {
            Ok(class) => Some(class),
            Err(_) => return refuse(format!("no PriorityClass with name {wanted} was found")),
        },
        None => store.list(&classes, None).items.into_iter().find(|class| class["globalDefault"] == true),
    };
    if let Some(class) = class {
        spec["priorityClassName"] = class["metadata"]["name"].clone();
        spec["priority"] = class["value"].clone();
        spec["preemptionPolicy"] = class["preemptionPolicy"].clone();
    }
    // Before validation: a default limit may be less than what is requested.
    store.limit(&kind.storage, namespace.unwrap_or_default(), object).map_err(|fault| Refusal::from(fault).about(kind, Some(&name)))
}
