//! Start, stop, find, sweep.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use embedded_cluster::cluster::{Cluster, ClusterConfig, ClusterError};
use libtest_mimic::Trial;

use crate::executor;
use crate::killed::api_address;
use crate::processes::Tree;

pub fn tests() -> Vec<Trial> {
    vec![
        Trial::test("a_stopped_lab_is_gone", || {
            executor().block_on(stopped());
            Ok(())
        }),
        Trial::test("a_dropped_lab_is_gone", || {
            executor().block_on(dropped());
            Ok(())
        }),
        Trial::test("a_start_given_up_leaves_nothing", || {
            executor().block_on(given_up());
            Ok(())
        }),
        Trial::test("a_name_is_taken_while_its_lab_runs", || {
            executor().block_on(taken());
            Ok(())
        }),
        Trial::test("a_detached_lab_outlives_its_launcher_and_is_found", || {
            detached();
            Ok(())
        }),
        Trial::test("folders_of_killed_labs_are_swept", || {
            swept();
            Ok(())
        }),
    ]
}

fn config(folder: &Path) -> ClusterConfig {
    ClusterConfig { state_dir: Some(folder.join("lab")), cluster_dns: false, ..ClusterConfig::new("lab") }
}

async fn stopped() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(folder.path())).await.unwrap();
    let (api, pid) = (cluster.api_address().unwrap(), cluster.pid());
    assert!(TcpStream::connect(api).is_ok());
    assert!(cluster.kubeconfig().exists());
    let found = Cluster::attach(cluster.state_dir()).unwrap();
    assert_eq!(found.record(), cluster.record());
    drop(found);
    assert!(TcpStream::connect(api).is_ok(), "letting go of a lab that somebody else started does not end it");
    cluster.stop().await.unwrap();
    assert!(TcpStream::connect(api).is_err());
    assert!(!folder.path().join("lab").exists());
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z"), "{stat}");
    assert!(matches!(Cluster::attach(&folder.path().join("lab")), Err(ClusterError::NotRunning { .. })));
}

async fn dropped() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(folder.path())).await.unwrap();
    let api = cluster.api_address().unwrap();
    drop(cluster);
    assert!(TcpStream::connect(api).is_err());
    assert!(!folder.path().join("lab").exists());
}

async fn given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.ready_within = Duration::ZERO;
    let error = Cluster::start(config.clone()).await.unwrap_err();
    assert!(matches!(&error, ClusterError::NotReady { processes, .. } if processes.contains("(system call ")), "{error}");
    // The half-started lab lets go of the name by itself, at once.
    config.ready_within = Duration::from_secs(20);
    let bound = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        match Cluster::start(config.clone()).await {
            Ok(cluster) => return cluster.stop().await.unwrap(),
            Err(error) => assert!(tokio::time::Instant::now() < bound, "{error}"),
        }
    }
}

async fn taken() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(config(folder.path())).await.unwrap();
    let error = Cluster::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(&error, ClusterError::AlreadyRunning { pid, .. } if *pid == cluster.pid()), "{error}");
    assert!(TcpStream::connect(cluster.api_address().unwrap()).is_ok(), "the refused start left the running lab alone");
    cluster.stop().await.unwrap();
}

fn detached() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::start(&["launcher", "lasting", folder.path().join("lab").to_str().unwrap(), "detached"], &[]);
    let api = api_address(&mut tree);
    assert!(tree.launcher.wait().unwrap().success());
    assert!(TcpStream::connect(api).is_ok());
    let executor = executor();
    let _inside = executor.enter();
    let cluster = Cluster::attach(&folder.path().join("lab")).unwrap();
    assert_eq!((cluster.name(), cluster.api_address()), ("lasting", Some(api)));
    executor.block_on(cluster.stop()).unwrap();
    assert_eq!(tree.gone_within_a_second(), Ok(()));
    assert!(TcpStream::connect(api).is_err());
}

fn swept() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [("TMPDIR", folder.path().to_str().unwrap())];
    let mut kept = Tree::start(&["launcher", "kept", "", "attached"], &environment);
    let mut killed = Tree::start(&["launcher", "killed", "", "attached"], &environment);
    for tree in [&mut kept, &mut killed] {
        api_address(tree);
    }
    let list = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.arg("list").envs(environment).env_remove("XDG_RUNTIME_DIR").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(list().lines().collect::<std::collections::BTreeSet<_>>(), ["kept", "killed"].into());
    killed.kill();
    assert_eq!(killed.gone_within_a_second(), Ok(()));
    let root = folder.path().join(format!("gatelab-{}", nix::unistd::getuid()));
    assert!(root.join("killed").exists(), "nobody was left to remove it");
    assert_eq!(list(), "kept\n");
    assert!(!root.join("killed").exists() && root.join("kept").exists());
}
