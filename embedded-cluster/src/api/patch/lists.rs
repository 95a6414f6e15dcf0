//! How the lists of Kubernetes' types are merged: taken from the `patchStrategy`/`patchMergeKey` tags (strategic merge)
//! and the `x-kubernetes-list-type`/`list-map-keys` markers (server-side apply) of the API's Go types.

use super::super::kinds::Kind;

/// The merge behaviour of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListRule {
    /// Replaced as a whole.
    Atomic,
    /// Primitive values, each at most once.
    Set,
    /// Objects that are told apart by these fields. Strategic merge uses the first only.
    Map(&'static [&'static str]),
}

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// The rule for the list at `path` (field names from the object's root; list items add no element).
pub(crate) fn rule(kind: &Kind, path: &[&str]) -> ListRule {
    use ListRule::{Atomic, Map, Set};
    if kind.custom.is_some() {
        return Atomic;
    }
    let (Some(last), parent) = (path.last(), path.len().checked_sub(2).and_then(|at| path.get(at)).copied().unwrap_or_default()) else {
        return Atomic;
    };
    let in_container = CONTAINERS.contains(&parent);
    let in_pod = |field: &str| *last == field && matches!(path, ["spec", _] | [.., "template", "spec", _]);
    let group = kind.resource.group.as_str();
    match (*last, parent) {
        ("finalizers", "metadata") => Set,
        ("ownerReferences", "metadata") => Map(&["uid"]),
        ("finalizers", "spec") if kind.is("", "namespaces") => Atomic,
        ("conditions", "status") => Map(&["type"]),
        ("env", _) if in_container => Map(&["name"]),
        ("ports", _) if in_container => Map(&["containerPort", "protocol"]),
        ("volumeMounts", _) if in_container => Map(&["mountPath"]),
        ("volumeDevices", _) if in_container => Map(&["devicePath"]),
        ("resizePolicy", _) if in_container => Atomic,
        ("claims", "resources") => Map(&["name"]),
        ("ports", "spec") if kind.is("", "services") => Map(&["port", "protocol"]),
        ("imagePullSecrets" | "secrets", _) if kind.is("", "serviceaccounts") => Map(&["name"]),
        ("addresses", "status") if kind.is("", "nodes") => Map(&["type"]),
        ("taints", "spec") if kind.is("", "nodes") => Map(&["key"]),
        ("podCIDRs", "spec") if kind.is("", "nodes") => Set,
        ("podIPs" | "hostIPs", "status") => Map(&["ip"]),
        ("volumeClaimTemplates", "spec") => Atomic,
        _ if group == "networking.k8s.io" || group == "discovery.k8s.io" || group == "rbac.authorization.k8s.io" => Atomic,
        _ if CONTAINERS.iter().any(|field| in_pod(field)) => Map(&["name"]),
        _ if in_pod("volumes") || in_pod("imagePullSecrets") || in_pod("resourceClaims") || in_pod("schedulingGates") => Map(&["name"]),
        _ if in_pod("hostAliases") => Map(&["ip"]),
        _ if in_pod("topologySpreadConstraints") => Map(&["topologyKey", "whenUnsatisfiable"]),
        _ => Atomic,
    }
}

/// Maps that server-side apply owns and replaces as a whole (`x-kubernetes-map-type: atomic`).
pub(crate) fn is_atomic_map(kind: &Kind, path: &[&str]) -> bool {
    let Some(last) = path.last() else { return false };
    matches!(
        *last,
        "selector" | "labelSelector" | "podSelector" | "namespaceSelector" | "objectSelector" | "nodeAffinity" | "fieldRef"
            | "resourceFieldRef" | "configMapKeyRef" | "secretKeyRef" | "involvedObject" | "regarding" | "related" | "targetRef"
            | "scaleTargetRef" | "roleRef" | "claimRef" | "secretRef" | "nodeRef" | "parameters"
    ) && kind.custom.is_none()
        // A label called `selector` is an ordinary label.
        && !matches!(path, ["metadata", ..] | [.., "labels" | "annotations" | "data" | "stringData", _])
}

#[cfg(test)]
mod tests {
    use super::super::super::kinds::builtin;
    use super::*;

    #[rstest::rstest]
    #[case("apps", "deployments", "spec.template.spec.containers", ListRule::Map(&["name"]))]
    #[case("", "pods", "spec.containers.ports", ListRule::Map(&["containerPort", "protocol"]))]
    #[case("", "pods", "spec.containers.args", ListRule::Atomic)]
    #[case("", "pods", "spec.tolerations", ListRule::Atomic)]
    #[case("", "services", "spec.ports", ListRule::Map(&["port", "protocol"]))]
    #[case("networking.k8s.io", "networkpolicies", "spec.ingress.ports", ListRule::Atomic)]
    #[case("", "endpoints", "subsets.ports", ListRule::Atomic)]
    #[case("", "configmaps", "metadata.finalizers", ListRule::Set)]
    fn lists_follow_the_go_types(#[case] group: &str, #[case] plural: &str, #[case] path: &str, #[case] expected: ListRule) {
        let path: Vec<&str> = path.split('.').collect();
        assert_eq!(rule(&builtin(group, "v1", plural).unwrap(), &path), expected);
    }
}
