//! The meaning of a request's path, as kube-apiserver's `RequestInfo`.

use std::sync::Arc;

use super::kinds::{self, Kind, Sub};
use super::query::decode;
use super::status::Refusal;
use crate::store::Store;

/// What a request is about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub kind: Arc<Kind>,
    /// `None` for cluster-scoped objects and for lists across namespaces.
    pub namespace: Option<String>,
    /// `None` for collections.
    pub name: Option<String>,
    pub sub: Option<Sub>,
}

impl Target {
    /// # Errors
    /// 405 for a collection.
    pub fn object_name(&self) -> Result<&str, Refusal> {
        self.name.as_deref().ok_or_else(Refusal::method_not_allowed)
    }

    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

/// Resolves the path of a resource below `/api/v1` or `/apis/<group>/<version>`.
///
/// # Errors
/// 404 as of kube-apiserver when no such resource is served.
pub(crate) fn resolve(store: &Store, group: &str, version: &str, rest: &[&str]) -> Result<Target, Refusal> {
    let find = |plural: &str| kinds::find(store, group, version, plural).ok_or_else(Refusal::no_such_resource);
    let is_namespace_itself = |segment: &str| group.is_empty() && matches!(segment, "status" | "finalize");
    let (namespace, rest) = match rest {
        ["namespaces", namespace, resource, more @ ..] if !is_namespace_itself(resource) => {
            let mut path = vec![*resource];
            path.extend(more);
            (Some(decode(namespace)), path)
        }
        other => (None, other.to_vec()),
    };
    let (plural, name, sub) = match rest.as_slice() {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some(decode(name)), None),
        [plural, name, sub] => (*plural, Some(decode(name)), Some(*sub)),
        _ => return Err(Refusal::no_such_resource()),
    };
    let kind = find(plural)?;
    if kind.is_namespaced() != namespace.is_some() && (namespace.is_some() || name.is_some()) {
        return Err(Refusal::no_such_resource());
    }
    let sub = match sub {
        None => None,
        Some(path) => Some(Sub::parse(path).filter(|sub| kind.has(*sub)).ok_or_else(Refusal::no_such_resource)?),
    };
    Ok(Target { kind, namespace, name, sub })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Resolved = (String, Option<String>, Option<String>, Option<Sub>);

    fn resolved(group: &str, path: &str) -> Result<Resolved, u16> {
        let rest: Vec<&str> = path.split('/').collect();
        let target = resolve(&Store::default(), group, "v1", &rest).map_err(|refusal| refusal.code)?;
        Ok((target.kind.resource.plural.clone(), target.namespace, target.name, target.sub))
    }

    proptest::proptest! {
        /// Of words that mean something and of any others, in any order.
        #[test]
        fn any_path_is_resolved_or_not_found(
            group in "|apps|events\\.k8s\\.io|.*",
            segments in proptest::collection::vec("namespaces|pods|deployments|status|scale|exec|finalize|%2[0-9a-f]|.*", 1..7),
        ) {
            let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
            match resolve(&Store::default(), &group, "v1", &segments) {
                Ok(target) => proptest::prop_assert!(target.kind.is_namespaced() || target.namespace.is_none()),
                Err(refusal) => proptest::prop_assert_eq!(refusal.code, 404),
            }
        }
    }

    #[test]
    fn paths_resolve_as_in_kubernetes() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(resolved("", "pods"), Ok(("pods".into(), None, None, None)));
        assert_eq!(resolved("", "namespaces/shop/pods/a/log"), Ok(("pods".into(), some("shop"), some("a"), Some(Sub::Log))));
        assert_eq!(resolved("", "namespaces/shop"), Ok(("namespaces".into(), None, some("shop"), None)));
        assert_eq!(resolved("", "namespaces/shop/finalize"), Ok(("namespaces".into(), None, some("shop"), Some(Sub::Finalize))));
        assert_eq!(
            resolved("apps", "namespaces/shop/deployments/a/scale"),
            Ok(("deployments".into(), some("shop"), some("a"), Some(Sub::Scale)))
        );
        for (group, path) in [
            ("", "podz"),
            ("", "pods/a"),
            ("", "namespaces/shop/nodes"),
            ("", "namespaces/shop/pods/a/colour"),
            ("apps", "pods"),
            ("", "namespaces/shop/configmaps/a/status"),
            ("", "namespaces/shop/pods/a/log/more"),
        ] {
            assert_eq!(resolved(group, path), Err(404), "{path}");
        }
    }
}
