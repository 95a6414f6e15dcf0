//! What the running configuration reflects: kept in a file, printed by `gateway-agent status`, asked for by the readiness probe.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::gateway::write_atomically;
use crate::GatewayKind;

/// Answer of `gatelab gateway-agent status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub gateway: GatewayKind,
    pub version: String,
    /// How often the running configuration was changed; 0: none is running yet.
    pub generation: u64,
    /// `Kind/namespace/name` and resourceVersion of every object, as the configuration that serves requests reflects it.
    pub applied: BTreeMap<String, String>,
    /// Why the newest configuration is not the running one.
    pub last_error: Option<String>,
}

pub(super) fn path(state: &Path) -> PathBuf {
    state.join("status.json")
}

impl Status {
    pub(super) fn write(&self, state: &Path) -> Result<(), String> {
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        write_atomically(&path(state), &text)
    }
}
