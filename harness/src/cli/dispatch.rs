//! From arguments to the command that they name, and from its end to the exit code.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use super::arguments::{Cli, Command, Global};
use super::exit::Exit;
use super::failure::Failure;
use super::{check, completions, container, diff, doctor, down, gateways, kubeconfig, list, matrix, report, run, show, status, up};
use crate::terminal::Screen;

/// Parses the command line and does what it says. To be called single-threaded.
pub fn main() -> ExitCode {
    if let Some(command) = container::asked_for() {
        return container::run(command, &Screen::new(false));
    }
    let cli = Cli::parse();
    let screen = Arc::new(Screen::new(cli.global.quiet));
    let people = match cli.command {
        Command::Container(command) => return container::run(command, &screen),
        people => people,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.failure(&Failure::environment(format!("cannot start threads: {error}")));
            return Exit::Environment.into();
        }
    };
    let ended = runtime.block_on(command(people, cli.global, &screen));
    // Threads that wait for a blocking call (a download, a terminal) must not hold the exit up.
    runtime.shutdown_background();
    let exit = match ended {
        Ok(exit) => exit,
        Err(failure) => {
            screen.failure(&failure);
            failure.exit
        }
    };
    match screen.take_broken() {
        Some(error) => {
            screen.failure(&Failure::new(Exit::Output, format!("cannot write to standard output: {error}")));
            Exit::Output.into()
        }
        None => exit.into(),
    }
}

async fn command(command: Command, global: Global, screen: &Arc<Screen>) -> Result<Exit, Failure> {
    match command {
        Command::Run(args) => run::run(&args, &global, screen).await,
        Command::List(args) => list::run(&args, &global, screen),
        Command::Show(args) => show::run(&args, &global, screen),
        Command::Check(args) => check::run(&args, &global, screen),
        Command::Up(args) => up::run(&args, &global, screen).await,
        Command::Kubeconfig(args) => kubeconfig::run(&args, screen),
        Command::Status(args) => status::run(&args, &global, screen).await,
        Command::Down(args) => down::run(&args, screen).await,
        Command::Doctor(args) => doctor::run(&args, screen),
        Command::Gateways(args) => gateways::run(&args, screen).await,
        Command::Report(args) => report::run(&args, screen),
        Command::Matrix(args) => matrix::run(&args, &global, screen),
        Command::Diff(args) => diff::run(&args, screen),
        Command::Completions(args) => completions::run(&args, screen),
        Command::Container(_) => Err(Failure::usage("this command runs in containers of the lab")),
    }
}
