//! Runs the agent on its own, against the cluster of the current kubeconfig:
//! `cargo run -p gateways --example agent -- --gateway nginx --http-port 8080 --https-port 8443 --health-port 10254`.
#![allow(clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    agent: gateways::agent::AgentArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    match gateways::agent::run(Arguments::parse().agent).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}{error}", gateways::AGENT_PREFIX);
            ExitCode::FAILURE
        }
    }
}
