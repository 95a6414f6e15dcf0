//! Objects of any kind: apply, patch, delete, read. What `kubectl` does, with the same semantics.

use futures::future::try_join_all;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::core::DynamicObject;
use serde_json::Value;

use super::client::{Kubernetes, KubernetesError, MARK};

/// Field manager of everything the lab applies.
const FIELD_MANAGER: &str = "gatelab";

/// Names one object, or, without a name, all of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl ObjectRef {
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        ObjectRef { api_version: api_version.into(), kind: kind.into(), namespace: Some(namespace.into()), name: name.into() }
    }

    /// Of a manifest; `namespace` where it names none.
    pub fn of(manifest: &Value, namespace: &str) -> Result<Self, KubernetesError> {
        let text = |pointer: &str| {
            manifest.pointer(pointer).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| KubernetesError::Manifest {
                detail: format!("no {} in {}", pointer.trim_start_matches('/').replace('/', "."), shortened(manifest)),
            })
        };
        Ok(ObjectRef {
            api_version: text("/apiVersion")?,
            kind: text("/kind")?,
            namespace: Some(text("/metadata/namespace").unwrap_or_else(|_| namespace.to_owned())),
            name: text("/metadata/name")?,
        })
    }
}

fn shortened(manifest: &Value) -> String {
    let mut text = manifest.to_string();
    if text.len() > 120 {
        text.truncate((0..=120).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0));
        text.push('…');
    }
    text
}

impl Kubernetes {
    /// Server-side apply of one manifest; conflicts are taken over, the lab's word is the last.
    pub async fn apply(&self, manifest: &Value, namespace: &str) -> Result<Value, KubernetesError> {
        let object = ObjectRef::of(manifest, namespace)?;
        let kind = self.kind(&object.to_string(), &object.api_version, &object.kind).await?;
        let api = self.api(&kind, object.namespace.as_deref());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let mut manifest = manifest.clone();
        if let Some(mark) = self.mark().filter(|_| !kind.namespaced) {
            manifest["metadata"]["labels"][MARK] = mark.into();
        }
        let applied = self.bounded(format!("applying {object}"), api.patch(&object.name, &params, &Patch::Apply(&manifest))).await?;
        Ok(to_value(&applied))
    }

    /// Namespaces (and definitions of kinds) first, the rest at the same time.
    pub async fn apply_all(&self, manifests: &[Value], namespace: &str) -> Result<Vec<Value>, KubernetesError> {
        let (first, rest): (Vec<_>, Vec<_>) =
            manifests.iter().partition(|manifest| matches!(manifest["kind"].as_str(), Some("Namespace" | "CustomResourceDefinition")));
        let mut applied = try_join_all(first.into_iter().map(|manifest| self.apply(manifest, namespace))).await?;
        applied.extend(try_join_all(rest.into_iter().map(|manifest| self.apply(manifest, namespace))).await?);
        Ok(applied)
    }

    /// `kubectl patch`: strategic merge for the kinds that Kubernetes itself defines, JSON merge for others.
    pub async fn patch(&self, partial: &Value, namespace: &str) -> Result<Value, KubernetesError> {
        let object = ObjectRef::of(partial, namespace)?;
        let kind = self.kind(&object.to_string(), &object.api_version, &object.kind).await?;
        let api = self.api(&kind, object.namespace.as_deref());
        let group = kind.resource.group.as_str();
        // Strategic merge needs the Go types' patch tags, which custom resources don't have (kubectl refuses it there).
        let built_in = !group.contains('.') || group.ends_with(".k8s.io");
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patch = if built_in { Patch::Strategic(partial) } else { Patch::Merge(partial) };
        let patched = self.bounded(format!("patching {object}"), api.patch(&object.name, &params, &patch)).await?;
        Ok(to_value(&patched))
    }

    /// A JSON merge patch on a named object, for single fields.
    pub async fn merge(&self, object: &ObjectRef, partial: &Value) -> Result<Value, KubernetesError> {
        let kind = self.kind(&object.to_string(), &object.api_version, &object.kind).await?;
        let api = self.api(&kind, object.namespace.as_deref());
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patched = self.bounded(format!("patching {object}"), api.patch(&object.name, &params, &Patch::Merge(partial))).await?;
        Ok(to_value(&patched))
    }

    /// Deletes with its dependents. An object that is not there is an error (a fault that deletes nothing is no fault).
    pub async fn delete(&self, object: &ObjectRef) -> Result<(), KubernetesError> {
        let kind = self.kind(&object.to_string(), &object.api_version, &object.kind).await?;
        let api = self.api(&kind, object.namespace.as_deref());
        let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        self.bounded(format!("deleting {object}"), api.delete(&object.name, &params)).await?;
        Ok(())
    }

    /// Deletes at once, without waiting for the kubelet to say that the pod has ended.
    pub async fn force_delete(&self, object: &ObjectRef) -> Result<(), KubernetesError> {
        let kind = self.kind(&object.to_string(), &object.api_version, &object.kind).await?;
        let api = self.api(&kind, object.namespace.as_deref());
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.bounded(format!("deleting {object} by force"), api.delete(&object.name, &params)).await?;
        Ok(())
    }

    pub async fn get(&self, object: &ObjectRef) -> Result<Value, KubernetesError> {
        let kind = self.kind(&object.to_string(), &object.api_version, &object.kind).await?;
        let api = self.api(&kind, object.namespace.as_deref());
        Ok(to_value(&self.bounded(format!("reading {object}"), api.get(&object.name)).await?))
    }

    /// All objects of a kind, in one namespace or, with `None`, everywhere. Each has its `apiVersion` and `kind`.
    pub async fn list(
        &self,
        api_version: &str,
        kind_name: &str,
        namespace: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Vec<Value>, KubernetesError> {
        let kind = self.kind(kind_name, api_version, kind_name).await?;
        let api = self.api(&kind, namespace);
        let params = ListParams { label_selector: labels.map(str::to_owned), ..ListParams::default() };
        let listed = self.bounded(format!("listing {}", kind.resource.plural), api.list(&params)).await?;
        Ok(listed
            .items
            .iter()
            .map(|object| {
                let mut value = to_value(object);
                // Items of a list carry no type of their own.
                value["apiVersion"] = api_version.into();
                value["kind"] = kind_name.into();
                value
            })
            .collect())
    }
}

fn to_value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or(Value::Null)
}
