//! `gatelab gateway-agent`: an ingress controller that runs one real gateway.

use std::{path::PathBuf, process::ExitCode};

use crate::GatewayKind;

/// Arguments of `gatelab gateway-agent`.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// `status` prints, as JSON, what the running configuration reflects, and exits.
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    /// The gateway to run.
    #[arg(long)]
    pub gateway: Option<GatewayKind>,
    /// Its binary.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Folders with shared libraries for it.
    #[arg(long)]
    pub library_path: Vec<PathBuf>,
    /// Folder for generated configuration and state.
    #[arg(long, default_value = "/tmp/gateway")]
    pub state: PathBuf,
    /// Port for HTTP.
    #[arg(long, default_value_t = 80)]
    pub http_port: u16,
    /// Port for HTTPS.
    #[arg(long, default_value_t = 443)]
    pub https_port: u16,
}

/// What else the agent's binary does.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum AgentCommand {
    /// Print what the running configuration reflects.
    Status,
}

/// Why the agent stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// When the gateway cannot be started, or stops by itself.
pub async fn run(arguments: AgentArgs) -> Result<ExitCode, AgentError> {
    let _ = arguments;
    Ok(ExitCode::SUCCESS)
}
