//! Nobody can grant what they do not have (`registry/rbac/*/policybased`), but with the verbs `escalate` and `bind`.

use serde_json::Value;

use super::super::identity::Identity;
use super::super::kinds::Kind;
use super::super::status::Refusal;
use super::attributes::{Attributes, forbidden_object};
use super::resolver;
use super::rule::Rule;
use super::{PRIVILEGED_GROUP, decide};
use crate::store::Store;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Checks a role or binding that is to be stored; `old` is the present one.
///
/// # Errors
/// 403 that lists the permissions not held.
pub(crate) fn check(
    store: &Store,
    user: &Identity,
    kind: &Kind,
    namespace: Option<&str>,
    next: &Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    if kind.resource.group != GROUP || user.is_in(PRIVILEGED_GROUP) {
        return Ok(());
    }
    let same = |field: &str| old.is_some_and(|old| old.get(field) == next.get(field));
    let name = next["metadata"]["name"].as_str().unwrap_or_default();
    let refuse = |why: &str| Err(forbidden_object(GROUP, &kind.resource.plural, name, why));
    let may = |verb: &str, resource: &str, name: &str| {
        let asked = Attributes {
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            ..Attributes::default()
        };
        decide(store, user, &asked).allowed
    };
    let wanted = match kind.resource.plural.as_str() {
        "roles" | "clusterroles" => {
            if same("rules") && same("aggregationRule") || may("escalate", &kind.resource.plural, name) {
                return Ok(());
            }
            if next["aggregationRule"].is_object() {
                let everything = Rule::of(&serde_json::json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
                if missing(store, user, namespace, std::slice::from_ref(&everything)).is_some() {
                    return refuse("must have cluster-admin privileges to use the aggregationRule");
                }
            }
            next["rules"].as_array().into_iter().flatten().map(Rule::of).collect::<Vec<_>>()
        }
        _ => {
            let role = &next["roleRef"];
            let resource = if role["kind"] == "Role" { "roles" } else { "clusterroles" };
            let role_name = role["name"].as_str().unwrap_or_default();
            if same("roleRef") && same("subjects") || may("bind", resource, role_name) {
                return Ok(());
            }
            match resolver::rules_of(store, role, namespace) {
                Ok(rules) => rules,
                Err(_) => {
                    return Err(Refusal::new(404, "NotFound", format!("{resource}.{GROUP} \"{role_name}\" not found")));
                }
            }
        }
    };
    match missing(store, user, namespace, &wanted) {
        None => Ok(()),
        Some(list) => {
            let groups: Vec<String> = user.groups.iter().map(|group| format!("\"{group}\"")).collect();
            refuse(&format!(
                "user \"{}\" (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{list}",
                user.user,
                groups.join(" ")
            ))
        }
    }
}

/// The part of `wanted` that a user does not have, a line a rule; `None` when there is none.
fn missing(store: &Store, user: &Identity, namespace: Option<&str>, wanted: &[Rule]) -> Option<String> {
    let mut held = Vec::new();
    resolver::visit(store, user, namespace, &mut |found| {
        held.extend(found.ok().map(|granted| granted.rule));
        true
    });
    let pieces = wanted.iter().flat_map(Rule::pieces).filter(|piece| !held.iter().any(|rule| rule.covers(piece)));
    // Pieces that differ in the verb only are told as one rule (`validation.CompactRules`).
    let mut compact: Vec<Rule> = Vec::new();
    for piece in pieces {
        let alike = |rule: &&mut Rule| {
            (&rule.groups, &rule.resources, &rule.names, &rule.paths) == (&piece.groups, &piece.resources, &piece.names, &piece.paths)
        };
        match compact.iter_mut().find(alike) {
            Some(rule) => rule.verbs.extend(piece.verbs.into_iter().filter(|verb| !rule.verbs.contains(verb)).collect::<Vec<_>>()),
            None => compact.push(piece),
        }
    }
    let mut lines: Vec<String> = compact.iter().map(Rule::compact).collect();
    lines.sort();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
