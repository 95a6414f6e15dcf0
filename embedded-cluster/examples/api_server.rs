//! The API server alone, with a node agent that runs commands on the host: for trying clients on it.
//!
//! `cargo run -p embedded-cluster --example api_server -- <folder>`, then `kubectl --kubeconfig <folder>/kubeconfig …`
#![allow(clippy::print_stdout, reason = "an example that tells where it listens")]

#[path = "../tests/api_clients/lab.rs"]
mod lab;

use std::path::Path;

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let lab = lab::Lab::start().await;
    let path = lab.write_kubeconfig(Path::new(&folder));
    println!("{} with {}", lab.server, path.display());
    let _ = tokio::signal::ctrl_c().await;
}
