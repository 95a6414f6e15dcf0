//! SIGKILL of the launcher, which nothing in it can react to.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::processes::Tree;

pub fn tests() -> Vec<Trial> {
    vec![
        Trial::test("a_killed_launcher_leaves_nothing_at_any_moment", || {
            at_any_moment();
            Ok(())
        }),
        Trial::test("a_killed_launcher_of_a_ready_lab_leaves_no_port", || {
            ready_lab();
            Ok(())
        }),
        Trial::test("a_killed_first_process_takes_all_others_along", || {
            first_process();
            Ok(())
        }),
    ]
}

fn at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen_labs = 0;
    for round in 0_u64..30 {
        let state_dir = folder.path().join(round.to_string());
        let mut tree = Tree::start(&["launcher", "victim", state_dir.to_str().unwrap(), "attached"], &[]);
        // From before the first namespace to well after the first pod.
        let moment = Instant::now() + Duration::from_millis(rand::random::<u64>() % (10 * (round + 1)));
        while Instant::now() < moment {
            tree.alive();
        }
        seen_labs += u32::from(tree.alive().len() > 1);
        tree.kill();
        if let Err(left) = tree.gone_within_a_second() {
            panic!("round {round}: {left:#?}");
        }
    }
    assert!(seen_labs > 3, "the launcher was always killed before it had started anything: the test shows nothing");
}

fn ready_lab() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::start(&["launcher", "victim", folder.path().to_str().unwrap(), "attached"], &[]);
    let api = api_address(&mut tree);
    assert!(TcpStream::connect(api).is_ok());
    // The DNS pod: a container is among them.
    let bound = Instant::now() + Duration::from_secs(20);
    while !tree.alive().iter().any(|process| process.contains("cluster-dns")) {
        assert!(Instant::now() < bound, "no container was started: {:#?}", tree.alive());
    }
    tree.kill();
    assert_eq!(tree.gone_within_a_second(), Ok(()));
    assert!(TcpStream::connect(api).is_err(), "the API's port is still open");
}

fn first_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::start(&["launcher", "victim", folder.path().to_str().unwrap(), "attached"], &[]);
    api_address(&mut tree);
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("lab.json")).unwrap()).unwrap();
    let pid = i32::try_from(record["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    // The launcher sees it and ends as well.
    let mut rest = String::new();
    tree.launcher.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(tree.gone_within_a_second(), Ok(()));
}

pub fn api_address(tree: &mut Tree) -> SocketAddr {
    let mut line = String::new();
    let mut stdout = BufReader::new(tree.launcher.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    tree.launcher.stdout = Some(stdout.into_inner());
    line.trim().parse().expect("the launcher prints the API's address")
}
