//! What kubectl prints for the commands that the documents tell an engineer to type, and many more, held in a snapshot
//! that was reviewed against real Kubernetes.

#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking, and says on standard error why it is skipped")]

use std::path::{Path, PathBuf};
use std::process::Command;

use gatelab_tests::Home;
use gatelab_tests::transcript::{BUSYBOX, Script, Stage, one_node, render};

/// The kubectl that the snapshot was taken with.
const KUBECTL: &str = "Client Version: v1.33";

/// What the embedded cluster does not serve yet: to be taken out one by one as it comes.
const LACKING: [&str; 0] = [];

/// At least so many kubectl commands have their output held.
const LEAST: usize = 120;

fn commands() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("transcript/commands.txt")
}

#[test]
fn the_transcript_is_long_enough() {
    let text = std::fs::read_to_string(commands()).expect("the file of commands");
    let script = Script::parse(&text, &LACKING.map(str::to_owned)).expect("a script");
    assert!(script.invocations() >= LEAST, "only {} kubectl commands are held", script.invocations());
}

#[test]
fn kubectl_prints_what_it_prints_on_kubernetes() {
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        eprintln!("skipped: kubectl is not on PATH");
        return;
    }
    let home = Home::new();
    let scenarios = one_node(home.path()).expect("a folder").display().to_string();
    let up = home.gatelab().args(["up", "--scenarios", &scenarios, "--name", "transcript"]).output().expect("gatelab starts");
    if !up.status.success() {
        let said = String::from_utf8_lossy(&up.stderr);
        assert!(said.contains("namespaces"), "up: {said}");
        eprintln!("skipped: {said}");
        return;
    }
    let kubeconfig = PathBuf::from(String::from_utf8_lossy(&up.stdout).trim());
    // Wording changes from one kubectl to the next.
    let version = Command::new("kubectl").arg("--kubeconfig").arg(&kubeconfig).arg("version").output().expect("kubectl starts");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.contains(KUBECTL) {
        let _ = home.gatelab().args(["down", "--all"]).output();
        eprintln!("skipped: the snapshot holds what kubectl {KUBECTL} prints, and here is: {version}");
        return;
    }
    let text = std::fs::read_to_string(commands()).expect("the file of commands");
    let script = Script::parse(&text, &LACKING.map(str::to_owned)).expect("a script");
    let commands = commands();
    let folder = commands.parent().expect("a folder");
    let entries = Stage { kubeconfig: &kubeconfig, kubectl: None, folder, busybox: BUSYBOX }.run(&script);
    let _ = home.gatelab().args(["down", "--all"]).output();
    let entries = entries.expect("every step that prepares succeeds");
    insta::with_settings!({snapshot_path => folder.join("snapshots"), prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("kubectl", render(&entries));
    });
}
