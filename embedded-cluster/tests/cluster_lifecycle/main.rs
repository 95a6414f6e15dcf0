//! Labs as whole process trees: they come up, stand beside each other, and leave nothing however their launcher ends.
//!
//! The test binary starts itself again as a lab's first process and as launchers to be killed, hence a `main` of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test; clippy knows only those under #[test]"
)]

mod killed;
mod lifetime;
mod processes;
mod refused;
mod traffic;

use std::process::ExitCode;

use embedded_cluster::cluster::{Cluster, ClusterConfig, ClusterError, Lifetime, list_labs};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(code) = embedded_cluster::run_if_reexecuted() {
        return ExitCode::from(code);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // Container commands, as `gatelab cluster-dns` is one.
        ["cluster-dns"] => return executor().block_on(serve_dns()),
        ["answer", port, text] => return traffic::answer(port, text),
        ["launcher", name, state_dir, lifetime] => return executor().block_on(launcher(name, state_dir, lifetime)),
        ["list"] => {
            list_labs().iter().for_each(|lab| println!("{}", lab.name));
            return ExitCode::SUCCESS;
        }
        ["refused", state_dir] => return refused::start_without_namespaces(state_dir),
        _ => {}
    }
    if let Some(reason) = executor().block_on(forbidden()) {
        eprintln!("skipped: no labs on this machine: {reason}");
        return ExitCode::SUCCESS;
    }
    let tests: Vec<Trial> = [lifetime::tests(), killed::tests(), refused::tests(), traffic::tests()].into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

pub fn executor() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn serve_dns() -> ExitCode {
    let arguments = <embedded_cluster::dns::DnsArgs as clap::Args>::augment_args(clap::Command::new("dns")).get_matches_from(["dns"]);
    let arguments = <embedded_cluster::dns::DnsArgs as clap::FromArgMatches>::from_arg_matches(&arguments).unwrap();
    ExitCode::from(u8::from(embedded_cluster::dns::run(arguments).await.is_err()))
}

/// Starts a lab, says so, and then waits to be killed, or ends at once when the lab is to outlive it.
async fn launcher(name: &str, state_dir: &str, lifetime: &str) -> ExitCode {
    let lifetime = if lifetime == "detached" { Lifetime::Detached } else { Lifetime::Attached };
    let state_dir = (!state_dir.is_empty()).then(|| state_dir.into());
    let cluster = match Cluster::start(ClusterConfig { lifetime, state_dir, ..ClusterConfig::new(name) }).await {
        Ok(cluster) => cluster,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", cluster.api_address().unwrap());
    if lifetime == Lifetime::Attached {
        cluster.ended().await;
    }
    ExitCode::SUCCESS
}

async fn forbidden() -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let config = ClusterConfig { state_dir: Some(folder.path().to_owned()), cluster_dns: false, ..ClusterConfig::new("probe") };
    match Cluster::start(config).await {
        Err(ClusterError::NamespacesForbidden(barrier)) => Some(barrier.to_string()),
        _ => None,
    }
}
