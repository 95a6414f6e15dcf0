//! `health:` - what the health endpoints say, which need not be the truth.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::optional_duration;

/// Health endpoints, on the main port and on `server.health_listen`. Read for each request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Path of the liveness endpoint.
    pub liveness_path: String,
    /// Path of the readiness endpoint.
    pub readiness_path: String,
    /// What liveness says.
    pub liveness: Verdict,
    /// What readiness says.
    pub readiness: Verdict,
    /// Time before a health endpoint answers.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub latency: Option<Duration>,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            liveness_path: "/healthz".to_owned(),
            readiness_path: "/readyz".to_owned(),
            liveness: Verdict::Auto,
            readiness: Verdict::Auto,
            latency: None,
        }
    }
}

/// What a health endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The truth: live while the process runs; ready once it listens and `startup.ready_after` has passed, until shutdown begins.
    Auto,
    /// Always 200.
    Pass,
    /// Always 503.
    Fail,
}
