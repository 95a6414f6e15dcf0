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
