//! CEL rules of CustomResourceDefinitions (`x-kubernetes-validations`), in kube-apiserver's words
//! (`apiextensions-apiserver/pkg/apiserver/schema/cel`).
//!
//! A version's schema becomes a tree of rules ([`rules`]) once; objects are walked along it ([`evaluate`]). Rules come from
//! whoever may write definitions, so both parsing ([`expression`]) and evaluating ([`budget`]) are bounded.

mod budget;
mod check;
mod evaluate;
mod expression;
mod library;
mod rules;
mod shape;
mod values;

use std::sync::OnceLock;

use serde_json::Value;

pub(in crate::api) use check::definition_mistakes;
pub(super) use evaluate::evaluate;
use rules::Node;

/// The rules of one version of a definition: compiled when its first object is written, and kept with its kind.
#[derive(Default)]
pub(crate) struct Rules(OnceLock<Option<Node>>);

impl Rules {
    /// Whether there are any that are evaluated.
    pub fn are_in(&self, schema: &Value) -> bool {
        self.of(schema).is_some()
    }

    /// `None` when the schema has none.
    fn of(&self, schema: &Value) -> Option<&Node> {
        self.0.get_or_init(|| Node::compile(schema)).as_ref()
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
