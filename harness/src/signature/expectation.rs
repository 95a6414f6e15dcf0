//! What is expected of one phase on one gateway, and what came of each part of it.

use serde::{Deserialize, Serialize};

use crate::scenario::Times;
use crate::scenario::expect::GatewayExpectation;

/// Everything that a scenario says about one phase on one gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    pub gateway: String,
    /// Application's namespace, where objects are looked for that name none.
    pub namespace: String,
    pub parts: GatewayExpectation,
    /// Values of the names in times.
    pub times: Times,
}

/// One expected thing and what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Item {
    /// Where it stands: `client.home.status`.
    pub name: String,
    pub met: bool,
    pub expected: String,
    pub observed: String,
}

/// Items that are named under the same element.
#[derive(Debug)]
pub(super) struct Items {
    prefix: String,
    items: Vec<Item>,
}

impl Items {
    pub(super) fn under(prefix: impl Into<String>) -> Self {
        Items { prefix: prefix.into(), items: Vec::new() }
    }

    /// `name` may be empty: then the element itself is meant.
    pub(super) fn add(&mut self, name: &str, met: bool, expected: String, observed: String) {
        let name = if name.is_empty() { self.prefix.clone() } else { format!("{}.{name}", self.prefix) };
        self.items.push(Item { name, met, expected, observed });
    }

    pub(super) fn into_vec(self) -> Vec<Item> {
        self.items
    }
}
