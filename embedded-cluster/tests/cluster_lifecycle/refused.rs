//! Machines that forbid user namespaces.

use std::process::{Command, ExitCode};

use embedded_cluster::cluster::{Cluster, ClusterConfig};
use libtest_mimic::Trial;
use nix::sched::{CloneFlags, unshare};

const UNTESTABLE: &str = "no user namespace to forbid further ones in";

pub fn tests() -> Vec<Trial> {
    vec![Trial::test("forbidden_user_namespaces_are_explained", || {
        explained();
        Ok(())
    })]
}

fn explained() {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = folder.path().join("lab");
    let output = Command::new(std::env::current_exe().unwrap()).args(["refused", state_dir.to_str().unwrap()]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    if error.starts_with(UNTESTABLE) {
        eprintln!("skipped: {error}");
        return;
    }
    assert!(error.contains("max_user_namespaces is 0") && error.contains("sudo sysctl user.max_user_namespaces="), "{error}");
    assert!(!state_dir.exists(), "a refused start leaves no folder");
}

/// A user namespace whose own limit of further ones is 0 stands for a machine that forbids them. Its user is no root,
/// because root would do without. Runs in a process of its own, single-threaded so far.
pub fn start_without_namespaces(state_dir: &str) -> ExitCode {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWUSER) {
        eprintln!("{UNTESTABLE}: {errno}");
        return ExitCode::FAILURE;
    }
    std::fs::write("/proc/self/setgroups", "deny").unwrap();
    std::fs::write("/proc/self/uid_map", format!("1000 {uid} 1")).unwrap();
    std::fs::write("/proc/self/gid_map", format!("1000 {gid} 1")).unwrap();
    std::fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
    let config = ClusterConfig { state_dir: Some(state_dir.into()), ..ClusterConfig::new("refused") };
    match crate::executor().block_on(Cluster::start(config)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
