//! One line of the doctor's answer.

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, such as `user namespaces`.
    pub name: String,
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it, when something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Ok,
    /// The lab cannot run without it.
    Missing,
    /// Something is lost without it that the lab can do without.
    Optional,
}

impl Check {
    pub fn ok(name: &str, found: impl Into<String>) -> Self {
        Check { name: name.into(), state: State::Ok, found: found.into(), advice: None }
    }

    pub fn missing(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Check { name: name.into(), state: State::Missing, found: found.into(), advice: Some(advice.into()) }
    }

    pub fn optional(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Check { name: name.into(), state: State::Optional, found: found.into(), advice: Some(advice.into()) }
    }
}
