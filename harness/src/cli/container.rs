//! The commands that containers of the lab run; each is a library's, and only started here.

use std::process::ExitCode;

use super::arguments::Command;
use super::exit::Exit;
use super::failure::Failure;
use crate::terminal::Screen;

/// A command line that containers use.
pub enum ContainerCommand {
    Backend(fake_backends::BackendArgs),
    GatewayAgent(gateways::agent::AgentArgs),
    Guest(crate::provider::named_image::guest::GuestArgs),
    Sidecar(gateways::sidecar::SidecarArgs),
    Probe(crate::probe::ProbeArgs),
    ClusterDns(embedded_cluster::dns::DnsArgs),
    Links(embedded_cluster::link_agent::LinksArgs),
    Redirect(embedded_cluster::network::redirect::RedirectArgs),
}

/// The command, when it is one for containers; people's commands stay with the caller.
pub fn of(command: Command) -> Result<ContainerCommand, Box<Command>> {
    Ok(match command {
        Command::Backend(args) => ContainerCommand::Backend(args),
        Command::GatewayAgent(args) => ContainerCommand::GatewayAgent(args),
        Command::Guest(args) => ContainerCommand::Guest(args),
        Command::Sidecar(args) => ContainerCommand::Sidecar(args),
        Command::Probe(args) => ContainerCommand::Probe(args),
        Command::ClusterDns(args) => ContainerCommand::ClusterDns(args),
        Command::Links(args) => ContainerCommand::Links(args),
        Command::Redirect(args) => ContainerCommand::Redirect(args),
        other => return Err(Box::new(other)),
    })
}

pub fn run(command: ContainerCommand, screen: &Screen) -> ExitCode {
    // A pod's process is one of dozens on the machine: a thread or two, not one for each core.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
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
