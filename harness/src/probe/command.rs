//! `gatelab probe`: the container command. Standard output is its only product, so this module writes to it directly.
#![allow(clippy::print_stdout)]

use std::io::Write;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::dns::Resolver;
use super::plan::Plan;
use super::record::Line;
use super::schedule::run_probe;

#[derive(Clone, Debug, clap::Args)]
pub struct ProbeArgs {
    /// `-`: read the plan, one line of JSON, from standard input; a later line `stop` ends open-ended probes.
    #[arg(required_unless_present = "idle", value_parser = ["-"])]
    pub plan: Option<String>,
    /// Do nothing until told to end (SIGTERM or SIGINT): keeps a pod for probes to run in.
    #[arg(long, conflicts_with = "plan")]
    pub idle: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot read the plan from standard input: {0}")]
    Input(#[source] std::io::Error),
    #[error("the plan on standard input is not one line of valid JSON: {0}")]
    Plan(#[source] serde_json::Error),
    #[error("cannot write results to standard output: {0}")]
    Output(#[source] std::io::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs until the plan is done, or, idle, until a signal.
pub async fn run(args: ProbeArgs) -> Result<(), ProbeError> {
    if args.idle { idle().await } else { follow(tokio::io::stdin()).await }
}

/// A container's first process gets no default action for signals (pid_namespaces(7)): without handlers, stopping the pod
/// would last its whole grace period.
async fn idle() -> Result<(), ProbeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(ProbeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ProbeError::Signals)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn follow(input: impl AsyncRead + Unpin + Send + 'static) -> Result<(), ProbeError> {
    let mut input = BufReader::new(input);
    let mut text = String::new();
    input.read_line(&mut text).await.map_err(ProbeError::Input)?;
    let plan: Plan = serde_json::from_str(&text).map_err(ProbeError::Plan)?;

    let (stop, stopped) = watch::channel(false);
    let listener = tokio::spawn(async move {
        let mut line = String::new();
        // End of input is not `stop`: a plan piped in from a file must run to its end.
        while matches!(input.read_line(&mut line).await, Ok(length) if length > 0) {
            if line.trim() == "stop" {
                let _ = stop.send(true);
            }
            line.clear();
        }
        std::future::pending::<()>().await;
    });
    let (lines, mut results) = mpsc::channel::<Line>(256);
    let resolver = Resolver::from_system();
    let mut probes = JoinSet::new();
    for probe in plan.probes {
        probes.spawn(run_probe(probe, resolver.clone(), lines.clone(), stopped.clone()));
    }
    drop(lines);
    let mut written = Ok(());
    while let Some(line) = results.recv().await {
        written = write_line(&line);
        if written.is_err() {
            break;
        }
    }
    listener.abort();
    written
}

fn write_line(line: &Line) -> Result<(), ProbeError> {
    let mut text = serde_json::to_vec(line).map_err(|error| ProbeError::Output(error.into()))?;
    text.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&text).and_then(|()| stdout.flush()).map_err(ProbeError::Output)
}
