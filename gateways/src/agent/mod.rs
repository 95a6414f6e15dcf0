//! `gatelab gateway-agent`: an ingress controller that runs one real gateway.
//!
//! It follows the Kubernetes API, makes the gateway's configuration, puts it in force, and knows which objects the running configuration
//! reflects. Its own lines on standard error begin with [`crate::AGENT_PREFIX`]; everything else in the pod's log is the gateway's.

mod events;
pub(crate) mod gateway;
pub(crate) mod health;
#[cfg(test)]
pub(crate) mod live_tests;
mod process;
mod reconcile;
mod status;
mod watch;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use kube::Client;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use gateway::{ApplyError, Binary, Gateway, write_atomically};
pub use gateway::{Files, GatewayError};
use health::Health;
pub(crate) use process::{Process, ask};
use reconcile::Reconciler;
use status::Board;
pub use status::Status;
use watch::Following;

use crate::{
    AGENT_PREFIX, GatewayKind, HEALTH_PORT,
    adapter::Start,
    fetch::{FetchError, version},
};

/// Arguments of `gatelab gateway-agent`.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    /// The gateway to run.
    #[arg(long, default_value_t = GatewayKind::ALL[0])]
    pub gateway: GatewayKind,
    /// Its binary.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// What the binary says its version is; it is asked where this is missing.
    #[arg(long)]
    pub gateway_version: Option<String>,
    /// Folders with shared libraries for it.
    #[arg(long)]
    pub library_path: Vec<PathBuf>,
    /// Folder for generated configuration and state.
    #[arg(long, default_value = "/tmp/gateway", global = true)]
    pub state: PathBuf,
    /// Port for HTTP.
    #[arg(long, default_value_t = 80)]
    pub http_port: u16,
    /// Port for HTTPS.
    #[arg(long, default_value_t = 443)]
    pub https_port: u16,
    /// Port for `/healthz`.
    #[arg(long, default_value_t = HEALTH_PORT)]
    pub health_port: u16,
    /// Port of the gateway's own admin interface or API, on the pod's loopback; 0 takes any, where the gateway can do that.
    #[arg(long, default_value_t = 9901)]
    pub admin_port: u16,
}

/// What else the agent's binary does.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum AgentCommand {
    /// Print, as JSON, which objects the running configuration reflects.
    Status {
        /// Go on printing, one JSON object a line, whenever that has changed, until something comes in on standard input.
        #[arg(long)]
        follow: bool,
    },
}

/// Why the agent stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Binary(#[from] FetchError),
    #[error("no {gateway} to run: name it with --binary, or put it on PATH")]
    NoBinary { gateway: GatewayKind },
    #[error("cannot use the Kubernetes API: {0}")]
    Api(#[from] kube::Error),
    #[error("cannot find the Kubernetes API: {0}")]
    Config(#[from] kube::config::InferConfigError),
    #[error("cannot {attempt}: {source}")]
    Io { attempt: String, source: std::io::Error },
    #[error("the gateway cannot be started: {0}")]
    Start(String),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

/// Writes a line of the agent's own to standard error.
pub(crate) fn log(message: &str) {
    let mut stderr = std::io::stderr().lock();
    for line in message.lines() {
        // With nobody reading there is nothing to be done about it.
        let _ = writeln!(stderr, "{AGENT_PREFIX}{line}");
    }
}

/// Runs the agent until SIGTERM or SIGINT, or prints its status.
///
/// # Errors
/// When the gateway cannot be started or ends by itself, or the API cannot be found.
pub async fn run(arguments: AgentArgs) -> Result<ExitCode, AgentError> {
    match arguments.command {
        Some(AgentCommand::Status { follow: false }) => print_status(&arguments.state),
        Some(AgentCommand::Status { follow: true }) => {
            let failed = |source| AgentError::Io { attempt: "follow the agent's status".to_owned(), source };
            status::follow(&arguments.state, tokio::io::stdin(), &mut std::io::stdout()).await.map_err(failed)?;
            Ok(ExitCode::SUCCESS)
        }
        None => serve(arguments).await,
    }
}

fn print_status(state: &Path) -> Result<ExitCode, AgentError> {
    let path = status::path(state);
    let text = std::fs::read_to_string(&path)
        .map_err(|source| AgentError::Io { attempt: format!("read {} (no agent has written it yet)", path.display()), source })?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").map_err(|source| AgentError::Io { attempt: "write to standard output".to_owned(), source })?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(arguments: AgentArgs) -> Result<ExitCode, AgentError> {
    let io = |attempt: String| move |source| AgentError::Io { attempt, source };
    // First of all: as process 1 of a container, a signal without a handler is ignored (pid_namespaces(7)).
    let mut terminate = signal(SignalKind::terminate()).map_err(io("listen for SIGTERM".to_owned()))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("listen for SIGINT".to_owned()))?;
    let kind = arguments.gateway;
    let path = arguments
        .binary
        .clone()
        .or_else(|| crate::fetch::locate(kind.adapter().facts().program))
        .ok_or(AgentError::NoBinary { gateway: kind })?;
    let version = match arguments.gateway_version.clone() {
        Some(version) => version,
        None => version::ask(kind, &path, &arguments.library_path)?,
    };
    let binary = Binary { path, library_path: version::library_path_value(&arguments.library_path), output: None };
    std::fs::create_dir_all(&arguments.state).map_err(io(format!("create {}", arguments.state.display())))?;
    let board = Board::open(&arguments.state).map_err(io("open the socket for its status".to_owned()))?;
    let health = Health::serve(arguments.health_port).await.map_err(io(format!("listen on port {}", arguments.health_port)))?;
    log(&format!("{kind} {version}, with the defaults of {}", kind.follows()));

    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stop);
    // The API may be out of reach for long; a stop is not to wait for it.
    let mut reconciler = tokio::select! {
        reconciler = prepare(&arguments, version, binary, health, board) => reconciler?,
        () = &mut stop => return Ok(ExitCode::SUCCESS),
    };
    tokio::select! {
        error = reconciler.run() => return Err(error),
        () = stop => {}
    }
    log("told to stop: letting requests in flight finish");
    reconciler.quit().await;
    Ok(ExitCode::SUCCESS)
}

async fn prepare(arguments: &AgentArgs, version: String, binary: Binary, health: Health, board: Board) -> Result<Reconciler, AgentError> {
    let kind = arguments.gateway;
    let client = Client::try_default().await?;
    let following = Following::start(&client).await;
    let settings = crate::model::build(kind, &following.objects()).global;
    let gateway = kind.adapter().start(Start {
        binary,
        version: version.clone(),
        state: arguments.state.clone(),
        http_port: arguments.http_port,
        https_port: arguments.https_port,
        admin_port: arguments.admin_port,
        settings,
        open_files: open_files(),
        name_servers: name_servers(),
    });
    Ok(Reconciler::new(client, following, gateway, kind, version, board, health))
}

fn open_files() -> u64 {
    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard)
}

/// `nameserver` lines of resolv.conf(5).
fn name_servers() -> Vec<std::net::IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok()).collect()
}
