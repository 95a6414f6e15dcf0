//! What kube-apiserver's admission plugins do that the lab needs: namespaces must exist, pods get a service account.

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
    match store.get(&Resource::of::<k8s_openapi::api::core::v1::Namespace>(), None, namespace) {
        Ok(_) => Ok(()),
        Err(_) => {
            let mut refusal = Refusal::new(404, "NotFound", format!("namespaces \"{namespace}\" not found"));
            refusal.details = Some(json!({"name": namespace, "kind": "namespaces"}));
            Err(refusal)
        }
    }
}

/// Plugin ServiceAccount; the token volume is the kubelet's affair.
pub(super) fn admit(kind: &Kind, object: &mut Value) {
    if !kind.is("", "pods") {
        return;
    }
    let spec = &mut object["spec"];
    let account = spec["serviceAccountName"].as_str().filter(|s| !s.is_empty()).unwrap_or("default").to_owned();
    spec["serviceAccount"] = account.clone().into();
    spec["serviceAccountName"] = account.into();
}
