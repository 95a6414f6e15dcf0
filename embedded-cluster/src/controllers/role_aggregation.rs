//! Fills in the rules of ClusterRoles that are made of others (`aggregationRule`): how `admin`, `edit` and `view` learn
//! of custom resources, as kube-controller-manager's clusterrole-aggregation-controller does it.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::Value;

use super::reconcile::{Outcome, Trigger, drive};
use crate::store::{Resource, Store};

/// Runs for ever.
pub(super) async fn run(store: Store) {
    let roles = Resource::of::<ClusterRole>();
    // Any role can be a part of any other: one key stands for all.
    let triggers = vec![Trigger::new(&roles, |_| vec![(String::new(), String::new())])];
    drive(store.clone(), triggers, |_| {
        aggregate_roles(&store);
        Outcome::Done
    })
    .await;
}

/// Brings every aggregated role up to date.
pub(crate) fn aggregate_roles(store: &Store) {
    let resource = Resource::of::<ClusterRole>();
    // Roles are made of made roles (admin of edit of view): each round carries rules one step further.
    for _ in 0..8 {
        let roles = store.list(&resource, None).items;
        let mut changed = false;
        for role in roles.iter().filter(|role| role["aggregationRule"].is_object()) {
            let wanted = sum(role, &roles);
            let name = role["metadata"]["name"].as_str().unwrap_or_default();
            if role["rules"].as_array().map_or(&[][..], Vec::as_slice) != wanted.as_slice() {
                // Gone meanwhile, or changed: the next event says so.
                changed |= store
                    .modify(&resource, None, name, |role| {
                        role["rules"] = wanted.into();
                        Ok(())
                    })
                    .is_ok();
            }
        }
        if !changed {
            return;
        }
    }
}

/// The rules of all roles that a role selects, in their names' order, each once.
fn sum(role: &Value, all: &[Arc<Value>]) -> Vec<Value> {
    let mut rules: Vec<Value> = Vec::new();
    for selector in role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten() {
        for other in all.iter().filter(|other| other["metadata"]["name"] != role["metadata"]["name"] && selects(selector, other)) {
            for rule in other["rules"].as_array().into_iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

fn selects(selector: &Value, role: &Value) -> bool {
    let Ok(selector) = serde_json::from_value(selector.clone()) else { return false };
    let labels: Option<super::selectors::Labels> = serde_json::from_value(role["metadata"]["labels"].clone()).unwrap_or_default();
    super::selectors::matches(&selector, labels.as_ref())
}
