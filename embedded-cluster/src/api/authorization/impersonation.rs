//! Acting as somebody else (`kubectl --as`), for whoever has the verb `impersonate`.

use http::HeaderMap;

use super::super::identity::Identity;
use super::super::status::Refusal;
use super::attributes::Attributes;
use super::authorize;
use crate::store::Store;

/// Whom a request is made for: its own user unless `Impersonate-*` headers name another.
///
/// # Errors
/// 403 when the user may not act as the other, 400 for groups without a user.
pub(crate) fn impersonated(store: &Store, user: Identity, headers: &HeaderMap) -> Result<Identity, Refusal> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (other, uid) = (text("impersonate-user"), text("impersonate-uid"));
    let mut groups: Vec<String> = headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    if other.is_empty() {
        if groups.is_empty() && uid.is_empty() {
            return Ok(user);
        }
        return Err(Refusal::bad_request("requested impersonation of groups or uid without impersonating a user"));
    }
    let may = |group: &str, resource: &str, namespace: Option<&str>, name: &str| {
        let asked = Attributes {
            verb: "impersonate".to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            ..Attributes::default()
        };
        authorize(store, &user, &asked)
    };
    let account = other.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, name)) => may("", "serviceaccounts", Some(namespace), name)?,
        None => may("", "users", None, &other)?,
    }
    for group in &groups {
        may("", "groups", None, group)?;
    }
    if !uid.is_empty() {
        may("authentication.k8s.io", "uids", None, &uid)?;
    }
    if let (Some((namespace, _)), true) = (account, groups.is_empty()) {
        groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let everybody = if other == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !groups.iter().any(|group| group == everybody || group == "system:unauthenticated") {
        groups.push(everybody.to_owned());
    }
    Ok(Identity { user: other, uid, groups })
}
