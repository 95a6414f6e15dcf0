//! `startup:` and `lifetime:` - the beginning and the end of the process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::optional_duration;

/// The time after the process starts until it serves.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Startup {
    /// The main port is opened this long after the start; until then connections are refused.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub listen_after: Option<Duration>,
    /// Until this long after the start, requests get 503 `starting` from the application and it is not ready.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub ready_after: Option<Duration>,
}

/// When the process ends by itself, as in a crash: open connections are cut.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lifetime {
    /// Time after the start.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub exit_after: Option<Duration>,
    /// Number of answered requests (health endpoints not counted).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_after_requests: Option<u64>,
    /// The exit code.
    pub exit_code: u8,
}
