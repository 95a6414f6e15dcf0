//! What a request asks for, by its method and path alone, as apiserver's `RequestInfo`: whether there is such a
//! resource does not matter, so that a stranger cannot find out by asking.

use http::Method;
use serde_json::json;

use super::super::identity::Identity;
use super::super::query::{Query, decode};
use super::super::status::Refusal;

/// The subject of a permission: a resource, or a path that is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub verb: String,
    /// Empty for resources.
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: Option<String>,
    pub name: String,
}

impl Attributes {
    pub fn of_request(method: &Method, path: &str, query: &Query) -> Self {
        let segments: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(decode).collect();
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _, rest @ ..] if !rest.is_empty() => ("", rest),
            ["apis", group, _, rest @ ..] if !rest.is_empty() => (*group, rest),
            _ => return Self { verb: method.as_str().to_lowercase(), path: path.to_owned(), ..Self::default() },
        };
        // `namespaces/{name}` is the object itself, and counts as of its own namespace.
        let (namespace, rest) = match rest {
            ["namespaces", namespace, kind, ..] if !matches!(*kind, "status" | "finalize") => (Some(*namespace), &rest[2..]),
            ["namespaces", namespace, ..] => (Some(*namespace), rest),
            _ => (None, rest),
        };
        let at = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        let mut name = at(1);
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            Method::GET | Method::HEAD if !name.is_empty() => "get",
            Method::GET | Method::HEAD => {
                name = named_by_selector(query);
                if query.flag("watch") { "watch" } else { "list" }
            }
            _ => "",
        };
        Self {
            verb: verb.to_owned(),
            path: String::new(),
            group: group.to_owned(),
            resource: at(0),
            subresource: at(2),
            namespace: namespace.map(str::to_owned),
            name,
        }
    }

    pub fn is_resource(&self) -> bool {
        self.path.is_empty()
    }

    /// `pods/log`
    pub fn full_resource(&self) -> String {
        if self.subresource.is_empty() { self.resource.clone() } else { format!("{}/{}", self.resource, self.subresource) }
    }

    /// The refusal as of apiserver's `responsewriters.Forbidden`.
    pub fn forbidden(&self, user: &Identity, reason: &str) -> Refusal {
        let suffix = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        if !self.is_resource() {
            let message = format!("forbidden: User \"{}\" cannot {} path \"{}\"{suffix}", user.user, self.verb, self.path);
            return Refusal { details: Some(json!({})), ..Refusal::new(403, "Forbidden", message) };
        }
        let place = match self.namespace.as_deref().filter(|n| !n.is_empty()) {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        let why = format!(
            "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}{suffix}",
            user.user,
            self.verb,
            self.full_resource(),
            self.group
        );
        forbidden_object(&self.group, &self.resource, &self.name, &why)
    }
}

/// `pods "a" is forbidden: …`
pub(super) fn forbidden_object(group: &str, resource: &str, name: &str, why: &str) -> Refusal {
    let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let message =
        if name.is_empty() { format!("{qualified} is forbidden: {why}") } else { format!("{qualified} \"{name}\" is forbidden: {why}") };
    let mut details = json!({"name": name, "group": group, "kind": resource});
    if let Some(details) = details.as_object_mut() {
        details.retain(|_, value| value != "");
    }
    Refusal { details: Some(details), ..Refusal::new(403, "Forbidden", message) }
}

/// A list or watch of exactly one name is asked for by name: rules with `resourceNames` can allow it.
fn named_by_selector(query: &Query) -> String {
    let exact = |requirement: &str| {
        let (field, value) = requirement.split_once('=')?;
        (field == "metadata.name").then(|| value.trim_start_matches('=').to_owned())
    };
    query.get("fieldSelector").unwrap_or_default().split(',').find_map(exact).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, path: &str, query: &str) -> String {
        let a = Attributes::of_request(&method, path, &Query::parse(Some(query)));
        let namespace = a.namespace.as_deref().unwrap_or("-");
        format!("{} {}{} in {:?} of {namespace} named {:?}", a.verb, a.path, a.full_resource(), a.group, a.name)
    }

    #[rstest::rstest]
    #[case(Method::GET, "/api/v1/pods", "", r#"list pods in "" of - named """#)]
    #[case(Method::GET, "/api/v1/namespaces/shop/pods", "watch=1", r#"watch pods in "" of shop named """#)]
    #[case(Method::GET, "/api/v1/namespaces/shop/secrets", "fieldSelector=metadata.name%3Da", r#"list secrets in "" of shop named "a""#)]
    #[case(Method::GET, "/api/v1/namespaces/shop/pods/a/log", "", r#"get pods/log in "" of shop named "a""#)]
    #[case(Method::POST, "/api/v1/namespaces/shop/pods/a/exec", "", r#"create pods/exec in "" of shop named "a""#)]
    #[case(Method::GET, "/api/v1/namespaces/shop", "", r#"get namespaces in "" of shop named "shop""#)]
    #[case(Method::PUT, "/api/v1/namespaces/shop/finalize", "", r#"update namespaces/finalize in "" of shop named "shop""#)]
    #[case(Method::DELETE, "/apis/apps/v1/namespaces/shop/deployments", "", r#"deletecollection deployments in "apps" of shop named """#)]
    #[case(Method::GET, "/apis/apps/v1", "", r#"get /apis/apps/v1 in "" of - named """#)]
    #[case(Method::GET, "/api/v1", "", r#"get /api/v1 in "" of - named """#)]
    #[case(Method::PATCH, "/apis/nobody.example/v1/things/a", "", r#"patch things in "nobody.example" of - named "a""#)]
    fn requests_are_read_as_by_kubernetes(#[case] method: Method, #[case] path: &str, #[case] query: &str, #[case] expected: &str) {
        assert_eq!(asked(method, path, query), expected);
    }
}
