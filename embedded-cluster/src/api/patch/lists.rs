//! How the lists of Kubernetes' types are merged: taken from the `patchStrategy`/`patchMergeKey` tags (strategic merge)
//! and the `x-kubernetes-list-type`/`list-map-keys` markers (server-side apply) of the API's Go types.

use serde_json::Value;

use super::super::kinds::Kind;

/// The fields that tell a list's items apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Keys<'k> {
    Known(&'static [&'static str]),
    /// `x-kubernetes-list-map-keys` of a custom resource's schema.
    Declared(&'k [Value]),
}

impl<'k> Keys<'k> {
    pub fn names(self) -> Vec<&'k str> {
        let mut names: Vec<&'k str> = match self {
            Self::Known(names) => names.to_vec(),
            Self::Declared(names) => names.iter().filter_map(Value::as_str).collect(),
        };
        // As FieldsV1 writes them.
        names.sort_unstable();
        names
    }

    /// The one that strategic merge goes by.
    pub fn first(self) -> &'k str {
        match self {
            Self::Known(names) => names.first().copied().unwrap_or_default(),
            Self::Declared(names) => names.first().and_then(Value::as_str).unwrap_or_default(),
        }
    }
}

/// The merge behaviour of a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ListRule<'k> {
    /// Replaced as a whole.
    Atomic,
    /// Primitive values, each at most once.
    Set,
    /// Objects that are told apart by these fields.
    Map(Keys<'k>),
}

/// Fields that are references or selectors wherever they occur.
const ATOMIC_MAPS: [&str; 24] = [
    "selector",
    "labelSelector",
    "podSelector",
    "namespaceSelector",
    "objectSelector",
    "preference",
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "involvedObject",
    "regarding",
    "related",
    "targetRef",
    "roleRef",
    "secretRef",
    "nodeRef",
    "dataSource",
    "scopeSelector",
    "nodePublishSecretRef",
    "controllerExpandSecretRef",
    "controllerPublishSecretRef",
    "nodeExpandSecretRef",
    "nodeStageSecretRef",
];

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// The rule for the list at `path` (field names from the object's root; list items add no element).
pub(crate) fn rule<'k>(kind: &'k Kind, path: &[&str]) -> ListRule<'k> {
    use ListRule::{Atomic, Set};
    let keyed = |names: &'static [&'static str]| ListRule::Map(Keys::Known(names));
    if let (Some(version), false) = (&kind.custom, path.first() == Some(&"metadata")) {
        return declared(&version["schema"]["openAPIV3Schema"], path);
    }
    let (Some(last), parent) = (path.last(), path.len().checked_sub(2).and_then(|at| path.get(at)).copied().unwrap_or_default()) else {
        return Atomic;
    };
    let in_container = CONTAINERS.contains(&parent);
    let in_pod = |field: &str| *last == field && matches!(path, ["spec", _] | [.., "template", "spec", _]);
    let group = kind.resource.group.as_str();
    match (*last, parent) {
        ("finalizers", "metadata") => Set,
        ("ownerReferences", "metadata") => keyed(&["uid"]),
        ("finalizers", "spec") if kind.is("", "namespaces") => Atomic,
        ("conditions", "status") => keyed(&["type"]),
        ("env", _) if in_container => keyed(&["name"]),
        ("ports", _) if in_container => keyed(&["containerPort", "protocol"]),
        ("volumeMounts", _) if in_container => keyed(&["mountPath"]),
        ("volumeDevices", _) if in_container => keyed(&["devicePath"]),
        ("resizePolicy", _) if in_container => Atomic,
        ("claims", "resources") => keyed(&["name"]),
        ("ports", "spec") if kind.is("", "services") => keyed(&["port", "protocol"]),
        ("secrets", _) if kind.is("", "serviceaccounts") => keyed(&["name"]),
        ("addresses", "status") if kind.is("", "nodes") => keyed(&["type"]),
        ("podCIDRs", "spec") if kind.is("", "nodes") => Set,
        ("podIPs" | "hostIPs", "status") => keyed(&["ip"]),
        ("addresses", "endpoints") | ("values", "onExitCodes") => Set,
        ("volumeClaimTemplates", "spec") => Atomic,
        _ if group == "networking.k8s.io" || group == "discovery.k8s.io" || group == "rbac.authorization.k8s.io" => Atomic,
        _ if CONTAINERS.iter().any(|field| in_pod(field)) => keyed(&["name"]),
        _ if in_pod("volumes") || in_pod("imagePullSecrets") || in_pod("resourceClaims") || in_pod("schedulingGates") => keyed(&["name"]),
        _ if in_pod("hostAliases") => keyed(&["ip"]),
        _ if in_pod("topologySpreadConstraints") => keyed(&["topologyKey", "whenUnsatisfiable"]),
        _ => Atomic,
    }
}

/// The rule that a custom resource's schema declares.
fn declared<'k>(schema: &'k Value, path: &[&str]) -> ListRule<'k> {
    let Some(list) = field(schema, path) else { return ListRule::Atomic };
    match (list["x-kubernetes-list-type"].as_str(), list["x-kubernetes-list-map-keys"].as_array()) {
        (Some("set"), _) => ListRule::Set,
        (Some("map"), Some(keys)) => ListRule::Map(Keys::Declared(keys)),
        _ => ListRule::Atomic,
    }
}

/// What a schema says of the field at `path`.
fn field<'k>(schema: &'k Value, path: &[&str]) -> Option<&'k Value> {
    path.iter().try_fold(schema, |at, name| {
        let object = if at["items"].is_object() { &at["items"] } else { at };
        object["properties"].get(*name).or_else(|| object.get("additionalProperties"))
    })
}

/// Maps that server-side apply owns and replaces as a whole (`x-kubernetes-map-type: atomic`).
pub(crate) fn is_atomic_map(kind: &Kind, path: &[&str]) -> bool {
    let Some(last) = path.last() else { return false };
    if let Some(version) = &kind.custom {
        let declared = field(&version["schema"]["openAPIV3Schema"], path);
        return path.first() != Some(&"metadata") && declared.is_some_and(|map| map["x-kubernetes-map-type"] == "atomic");
    }
    let parent = path.len().checked_sub(2).and_then(|at| path.get(at)).copied().unwrap_or_default();
    // A label called `selector` is an ordinary label.
    if path.first() == Some(&"metadata") || matches!(parent, "labels" | "annotations" | "data" | "stringData") {
        return false;
    }
    match (*last, parent) {
        ("secretRef", "envFrom") => false,
        // Of autoscalers: in autoscaling/v2 its fields are merged.
        ("scaleTargetRef", _) => kind.resource.version == "v1",
        ("requiredDuringSchedulingIgnoredDuringExecution" | "required", "nodeAffinity")
        | ("port", "service")
        | ("resource", "backend" | "defaultBackend") => true,
        (last, _) => ATOMIC_MAPS.contains(&last),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::kinds::builtin;
    use super::*;

    #[rstest::rstest]
    #[case("apps", "deployments", "spec.template.spec.containers", ListRule::Map(Keys::Known(&["name"])))]
    #[case("", "pods", "spec.containers.ports", ListRule::Map(Keys::Known(&["containerPort", "protocol"])))]
    #[case("", "pods", "spec.containers.args", ListRule::Atomic)]
    #[case("", "pods", "spec.tolerations", ListRule::Atomic)]
    #[case("", "services", "spec.ports", ListRule::Map(Keys::Known(&["port", "protocol"])))]
    #[case("networking.k8s.io", "networkpolicies", "spec.ingress.ports", ListRule::Atomic)]
    #[case("", "endpoints", "subsets.ports", ListRule::Atomic)]
    #[case("", "configmaps", "metadata.finalizers", ListRule::Set)]
    fn lists_follow_the_go_types(#[case] group: &str, #[case] plural: &str, #[case] path: &str, #[case] expected: ListRule<'_>) {
        let path: Vec<&str> = path.split('.').collect();
        assert_eq!(rule(&builtin(group, "v1", plural).unwrap(), &path), expected);
    }

    #[test]
    fn custom_resources_declare_their_lists() {
        let version = serde_json::json!({"name": "v1", "schema": {"openAPIV3Schema": {"properties": {"status": {"properties": {
            "parents": {"items": {"properties": {"conditions": {
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": {"properties": {}}}}}}}}}}}});
        let definition = serde_json::json!({"spec": {"group": "a.b", "names": {"kind": "K", "plural": "ks"}}});
        let kind = Kind::custom(&definition, &version).unwrap();
        let ListRule::Map(keys) = rule(&kind, &["status", "parents", "conditions"]) else { panic!("not keyed") };
        assert_eq!(keys.names(), ["type"]);
        assert_eq!(rule(&kind, &["status", "parents"]), ListRule::Atomic);
        assert_eq!(rule(&kind, &["metadata", "finalizers"]), ListRule::Set);
    }
}
