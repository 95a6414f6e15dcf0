//! Starts a lab and keeps it until Ctrl-C: `cargo run -p embedded-cluster --example lab [-- NAME]`, then
//! `kubectl --kubeconfig …` with the path it prints. Pods of it can run this program's `cluster-dns` and `redirect`.
#![allow(clippy::print_stdout)] // an example talks to the person who runs it

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use embedded_cluster::cluster::{Cluster, ClusterConfig};
use embedded_cluster::{dns, network::redirect};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    ClusterDns(dns::DnsArgs),
    Redirect(redirect::RedirectArgs),
    #[command(external_subcommand)]
    Named(Vec<String>),
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let Some(code) = embedded_cluster::run_if_reexecuted() {
        return Ok(ExitCode::from(code));
    }
    let arguments = Arguments::parse();
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    executor.block_on(async {
        match arguments.command {
            Some(Command::ClusterDns(args)) => dns::run(args).await?,
            Some(Command::Redirect(args)) => drop(redirect::run(args).await?),
            Some(Command::Named(names)) => lab(names.first().map_or("example", String::as_str)).await?,
            None => lab("example").await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn lab(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let began = std::time::Instant::now();
    let cluster = Cluster::start(ClusterConfig::new(name)).await?;
    println!("ready after {:?}, first process {}", began.elapsed(), cluster.pid());
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    tokio::select! {
        () = cluster.ended() => println!("the lab ended by itself:\n{}", cluster.log_tail()),
        _ = tokio::signal::ctrl_c() => cluster.stop().await?,
    }
    Ok(())
}
