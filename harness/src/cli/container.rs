//! The commands that containers of the lab run; each is a library's, and only started here.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::exit::Exit;
use super::failure::Failure;
use crate::terminal::Screen;

/// What containers of the lab run.
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    #[command(hide = true)]
    Backend(fake_backends::BackendArgs),
    #[command(hide = true)]
    GatewayAgent(gateways::agent::AgentArgs),
    #[command(hide = true)]
    Guest(crate::provider::named_image::guest::GuestArgs),
    #[command(hide = true)]
    Sidecar(gateways::sidecar::SidecarArgs),
    #[command(hide = true)]
    Probe(crate::probe::ProbeArgs),
    #[command(hide = true)]
    ClusterDns(embedded_cluster::dns::DnsArgs),
    #[command(hide = true)]
    Links(embedded_cluster::link_agent::LinksArgs),
    #[command(hide = true)]
    Redirect(embedded_cluster::network::redirect::RedirectArgs),
}

#[derive(Debug, Parser)]
#[command(name = "gatelab")]
struct ContainerCli {
    #[command(subcommand)]
    command: ContainerCommand,
}

/// The command that this process was started with, when it is one for containers. There are dozens of them in each run, and most
/// of a short one's time goes into people's commands and options where these are put together, too.
pub fn asked_for() -> Option<ContainerCommand> {
    let first = std::env::args_os().nth(1)?;
    ContainerCommand::has_subcommand(first.to_str()?).then(|| ContainerCli::parse().command)
}

pub fn run(command: ContainerCommand, screen: &Screen) -> ExitCode {
    // A pod's process is one of dozens on the machine, and most live for milliseconds: one thread, not one for each core.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.failure(&Failure::environment(format!("cannot start threads: {error}")));
            return Exit::Environment.into();
        }
    };
    let ended = runtime.block_on(start(command));
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(failure) => {
            screen.failure(&failure);
            failure.exit.into()
        }
    }
}

async fn start(command: ContainerCommand) -> Result<ExitCode, Failure> {
    match command {
        ContainerCommand::Backend(args) => done(fake_backends::run(args).await),
        ContainerCommand::GatewayAgent(args) => gateways::agent::run(args).await.map_err(|error| failed(&error)),
        ContainerCommand::Guest(args) => done(crate::provider::named_image::guest::run(&args)),
        ContainerCommand::Sidecar(args) => gateways::sidecar::run(args).await.map_err(|error| failed(&error)),
        ContainerCommand::Probe(args) => done(crate::probe::run(args).await),
        ContainerCommand::ClusterDns(args) => done(embedded_cluster::dns::run(args).await),
        ContainerCommand::Links(args) => {
            // Its log is its own; a gateway's agent has to leave the log of its container to the gateway.
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_max_level(tracing::Level::WARN).init();
            done(embedded_cluster::link_agent::run(args).await)
        }
        ContainerCommand::Redirect(args) => done(embedded_cluster::network::redirect::run(args).await),
    }
}

fn done<E: std::error::Error + 'static>(result: Result<(), E>) -> Result<ExitCode, Failure> {
    result.map(|()| ExitCode::SUCCESS).map_err(|error| failed(&error))
}

/// Exit code 1, as any program's that failed at its work: the table of exit codes is for people's commands.
fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::from_error(Exit::Unexpected, error)
}
