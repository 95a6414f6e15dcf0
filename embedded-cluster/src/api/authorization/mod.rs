//! Who may do what: role-based access control as kube-apiserver's RBAC authorizer decides it.
//!
//! [`attributes`] says what a request asks for, [`resolver`] which rules speak for a user, [`escalation`] keeps people
//! from granting what they do not have, [`impersonation`] lets one act as another, [`reviews`] answers questions.

mod attributes;
mod bootstrap;
mod escalation;
mod impersonation;
mod resolver;
mod reviews;
mod rule;

pub(super) use attributes::Attributes;
pub use bootstrap::create_default_roles;
pub(super) use escalation::check as check_escalation;
pub(super) use impersonation::impersonated;
pub(super) use reviews::review;

use super::identity::Identity;
use super::status::Refusal;
use crate::store::Store;

/// The group whose members may do everything without being asked (`user.SystemPrivilegedGroup`).
const PRIVILEGED_GROUP: &str = "system:masters";

/// Whether a request is allowed, and why.
pub(super) struct Decision {
    pub allowed: bool,
    pub reason: String,
}

pub(super) fn decide(store: &Store, user: &Identity, asked: &Attributes) -> Decision {
    if user.is_in(PRIVILEGED_GROUP) {
        return Decision { allowed: true, reason: String::new() };
    }
    let mut faults = Vec::new();
    let mut reason = None;
    resolver::visit(store, user, asked.namespace.as_deref(), &mut |found| {
        match found {
            Ok(granted) if granted.rule.allows(asked) => reason = Some(granted.source.to_string()),
            Ok(_) => {}
            Err(fault) => faults.push(fault),
        }
        reason.is_none()
    });
    match (reason, faults.as_slice()) {
        (Some(source), _) => Decision { allowed: true, reason: format!("RBAC: allowed by {source}") },
        (None, []) => Decision { allowed: false, reason: String::new() },
        (None, [fault]) => Decision { allowed: false, reason: format!("RBAC: {fault}") },
        (None, faults) => Decision { allowed: false, reason: format!("RBAC: [{}]", faults.join(", ")) },
    }
}

/// # Errors
/// 403 in kube-apiserver's words.
pub(super) fn authorize(store: &Store, user: &Identity, asked: &Attributes) -> Result<(), Refusal> {
    let decision = decide(store, user, asked);
    if decision.allowed { Ok(()) } else { Err(asked.forbidden(user, &decision.reason)) }
}
