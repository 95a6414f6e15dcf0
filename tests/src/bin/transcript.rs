//! Runs the transcript of kubectl commands against a cluster and prints what they said, or the differences to another:
//! `cargo run -p gatelab-tests --bin transcript -- --kubeconfig X [--against Y] [--kubectl PATH] [--lacking shell]`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for people at a terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use gatelab_tests::transcript::{Entry, Script, Stage, difference, render};

#[derive(Parser)]
struct Arguments {
    /// Cluster to run against.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Another cluster; only what differs is printed, and the exit code is 1 when anything does.
    #[arg(long)]
    against: Option<PathBuf>,
    /// kubectl to use instead of the one on PATH.
    #[arg(long)]
    kubectl: Option<PathBuf>,
    /// Image with a shell and busybox' tools that the cluster has or can get.
    #[arg(long, default_value = gatelab_tests::transcript::BUSYBOX)]
    busybox: String,
    /// As `--busybox`, for the cluster of `--against`.
    #[arg(long, default_value = gatelab_tests::transcript::BUSYBOX)]
    against_busybox: String,
    /// What a cluster lacks; sections that need it are left out.
    #[arg(long)]
    lacking: Vec<String>,
    /// File of commands.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/transcript/commands.txt"))]
    commands: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let text = std::fs::read_to_string(&arguments.commands).map_err(|error| format!("{}: {error}", arguments.commands.display()))?;
    let script = Script::parse(&text, &arguments.lacking)?;
    let folder = arguments.commands.parent().unwrap_or(Path::new("."));
    let on = |kubeconfig: &Path, busybox: &str| -> Result<Vec<Entry>, String> {
        Stage { kubeconfig, kubectl: arguments.kubectl.as_deref(), folder, busybox }.run(&script)
    };
    let first = on(&arguments.kubeconfig, &arguments.busybox)?;
    let Some(against) = &arguments.against else {
        print!("{}", render(&first));
        return Ok(ExitCode::SUCCESS);
    };
    let told = difference(&first, &on(against, &arguments.against_busybox)?);
    print!("{told}");
    Ok(if told.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
