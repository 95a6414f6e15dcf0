//! Which rules speak for a user: those of the roles that bindings give it (`validation.DefaultRuleResolver`).

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::Value;

use super::super::identity::Identity;
use super::rule::Rule;
use crate::store::{Resource, Store};

/// A rule, and the binding through which a user has it.
pub(super) struct Granted<'a> {
    pub rule: Rule,
    pub source: Source<'a>,
}

/// `ClusterRoleBinding "b" of ClusterRole "r" to User "u"`
pub(super) struct Source<'a> {
    binding: &'a Value,
    subject: &'a Value,
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&self.binding["metadata"]["name"]);
        let (kind, name) = match self.binding["metadata"]["namespace"].as_str() {
            Some(namespace) => ("RoleBinding", format!("{name}/{namespace}")),
            None => ("ClusterRoleBinding", name),
        };
        let role = &self.binding["roleRef"];
        let subject = match self.subject["namespace"].as_str().filter(|_| self.subject["kind"] == "ServiceAccount") {
            Some(namespace) => format!("{}/{namespace}", text(&self.subject["name"])),
            None => text(&self.subject["name"]),
        };
        write!(
            out,
            "{kind} \"{name}\" of {} \"{}\" to {} \"{subject}\"",
            text(&role["kind"]),
            text(&role["name"]),
            text(&self.subject["kind"])
        )
    }
}

/// Calls `see` with each rule of a user in a namespace (cluster-wide rules always), or with why a role cannot be read,
/// until it returns false.
pub(super) fn visit(store: &Store, user: &Identity, namespace: Option<&str>, see: &mut dyn FnMut(Result<Granted<'_>, String>) -> bool) {
    let cluster = store.list(&Resource::of::<ClusterRoleBinding>(), None).items;
    let local = match namespace.filter(|n| !n.is_empty()) {
        Some(namespace) => store.list(&Resource::of::<RoleBinding>(), Some(namespace)).items,
        None => Vec::new(),
    };
    for binding in cluster.iter().chain(&local) {
        let home = binding["metadata"]["namespace"].as_str();
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        let Some(subject) = subjects.into_iter().find(|subject| is_meant(subject, user, home)) else { continue };
        match rules_of(store, &binding["roleRef"], home) {
            Ok(rules) => {
                for rule in rules {
                    if !see(Ok(Granted { rule, source: Source { binding, subject } })) {
                        return;
                    }
                }
            }
            Err(fault) => {
                if !see(Err(fault)) {
                    return;
                }
            }
        }
    }
}

/// The rules of the role that a binding names.
///
/// # Errors
/// The message of the role that is missing.
pub(super) fn rules_of(store: &Store, role: &Value, namespace: Option<&str>) -> Result<Vec<Rule>, String> {
    let name = role["name"].as_str().unwrap_or_default();
    let found: Result<Arc<Value>, &str> = match (role["kind"].as_str(), namespace) {
        (Some("Role"), Some(namespace)) => store.get(&Resource::of::<Role>(), Some(namespace), name).map_err(|_| "role"),
        _ => store.get(&Resource::of::<ClusterRole>(), None, name).map_err(|_| "clusterrole"),
    };
    let found = found.map_err(|kind| format!("{kind}.rbac.authorization.k8s.io \"{name}\" not found"))?;
    Ok(found["rules"].as_array().into_iter().flatten().map(Rule::of).collect())
}

fn is_meant(subject: &Value, user: &Identity, home: Option<&str>) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => user.user == name,
        Some("Group") => user.is_in(name),
        Some("ServiceAccount") => {
            // A ServiceAccount without namespace is meant in the binding's own; nobody in a ClusterRoleBinding.
            let namespace = subject["namespace"].as_str().filter(|n| !n.is_empty()).or(home);
            namespace.is_some_and(|namespace| user.user == format!("system:serviceaccount:{namespace}:{name}"))
        }
        _ => false,
    }
}
