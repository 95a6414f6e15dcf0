//! `gatelab sidecar`: a real Envoy as a pod's sidecar, in the manner of Istio's.

use std::{path::PathBuf, process::ExitCode};

/// Arguments of `gatelab sidecar`.
#[derive(Debug, Clone, clap::Args)]
pub struct SidecarArgs {
    /// Envoy's binary.
    #[arg(long)]
    pub binary: PathBuf,
}

/// Why the sidecar stopped.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {}

/// Runs the sidecar until it is told to stop.
///
/// # Errors
/// When Envoy cannot be started, or stops by itself.
pub async fn run(arguments: SidecarArgs) -> Result<ExitCode, SidecarError> {
    let _ = arguments;
    Ok(ExitCode::SUCCESS)
}
