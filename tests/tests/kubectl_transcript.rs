//! What kubectl prints for the commands that the documents tell an engineer to type, and many more, held in snapshots that were reviewed
//! against real Kubernetes: all that one kubectl prints, and of others what they print otherwise.
//!
//! Runs with every kubectl that it finds ([`kubectls`]); one whose minor version was not reviewed is held to the exit codes only.

#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking, and says on standard error why it is skipped")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gatelab_tests::transcript::held::{differing, is_in, laid_over, other_exits, read, read_differing};
use gatelab_tests::transcript::{BUSYBOX, Entry, Kubectl, Script, Stage, difference, kubectls, one_node, render};
use gatelab_tests::{Home, skipped};

/// The minor version whose snapshot is whole: that of the Kubernetes that the embedded cluster is.
const BASE: u32 = 33;
/// Those whose differences to it were reviewed, each explained in front of its command (`# client:`).
const OTHERS: [u32; 2] = [32, 34];
/// Of Debian bookworm's package `kubernetes-client`.
const DEBIAN: u32 = 20;
/// `kubectl wait --for=create` came with it; what is older lacks that and more of the transcript.
const OLDEST: u32 = 31;

/// What the embedded cluster does not serve yet: to be taken out one by one as it comes.
const LACKING: [&str; 0] = [];

/// At least so many kubectl commands have their output held.
const LEAST: usize = 120;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("transcript")
}

fn script() -> Script {
    script_of("commands.txt")
}

fn script_of(file: &str) -> Script {
    let text = std::fs::read_to_string(folder().join(file)).expect("the file of commands");
    Script::parse(&text, &LACKING.map(str::to_owned)).expect("a script")
}

fn kept(minor: u32) -> String {
    let file = folder().join(format!("snapshots/kubectl-1.{minor}.snap"));
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn base() -> Vec<Entry> {
    read(&kept(BASE), &script()).unwrap_or_else(|why| panic!("take the whole snapshot anew, with kubectl 1.{BASE}: {why}"))
}

/// `None`, and a word about it, where this machine cannot run labs.
fn transcript(kubectl: &Kubectl, script: &Script) -> Option<Vec<Entry>> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let home = Home::new();
    let scenarios = one_node(home.path()).expect("a folder").display().to_string();
    let up = home.gatelab().args(["up", "--scenarios", &scenarios, "--name", "transcript"]).output().expect("gatelab starts");
    if !up.status.success() {
        let said = String::from_utf8_lossy(&up.stderr);
        assert!(said.contains("namespaces"), "up: {said}");
        skipped(&said);
        return None;
    }
    let kubeconfig = PathBuf::from(String::from_utf8_lossy(&up.stdout).trim());
    let entries = Stage { kubeconfig: &kubeconfig, kubectl: Some(&kubectl.path), folder: &folder(), busybox: BUSYBOX }.run(script);
    let _ = home.gatelab().args(["down", "--all"]).output();
    Some(entries.unwrap_or_else(|why| panic!("a step that prepares, with kubectl 1.{}: {why}", kubectl.minor)))
}

/// Of the reviewed version.
fn reviewed(minor: u32, script: &Script) -> Option<Vec<Entry>> {
    let kubectl = kubectls().into_iter().find(|kubectl| kubectl.minor == minor);
    if kubectl.is_none() {
        skipped(&format!("no kubectl 1.{minor} here (on PATH, or named by GATELAB_KUBECTL): what it prints is not held"));
    }
    transcript(&kubectl?, script)
}

fn hold(minor: u32, text: String) {
    insta::with_settings!({snapshot_path => folder().join("snapshots"), prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(format!("kubectl-1.{minor}"), text);
    });
}

#[test]
fn the_transcript_is_long_enough() {
    assert!(script().invocations() >= LEAST, "only {} kubectl commands are held", script().invocations());
}

#[test]
fn kubectl_prints_what_it_prints_on_kubernetes() {
    if let Some(entries) = reviewed(BASE, &script()) {
        hold(BASE, render(&entries));
    }
}

#[test]
fn kubectl_1_32_differs_as_reviewed() {
    if let Some(entries) = reviewed(32, &script()) {
        hold(32, render(&differing(&base(), &entries)));
    }
}

#[test]
fn kubectl_1_34_differs_as_reviewed() {
    if let Some(entries) = reviewed(34, &script()) {
        hold(34, render(&differing(&base(), &entries)));
    }
}

/// An old one, that speaks SPDY, plain discovery and OpenAPI 2 in protobuf: a script of its own, as it lacks many of the others' subcommands.
#[test]
fn the_kubectl_of_debian_bookworm_feels_at_home() {
    if let Some(entries) = reviewed(DEBIAN, &script_of("debian.txt")) {
        hold(DEBIAN, render(&entries));
    }
}

/// Needs no kubectl.
#[test]
fn every_difference_between_versions_is_explained() {
    let script = script();
    let explained: BTreeSet<&str> = script.held().filter(|step| step.client.is_some()).map(|step| step.command.as_str()).collect();
    let texts = OTHERS.map(kept);
    let differs = |command: &&str| texts.iter().any(|text| is_in(text, command));
    let differing: BTreeSet<&str> = script.held().map(|step| step.command.as_str()).filter(differs).collect();
    assert_eq!(differing, explained, "commands that differ in a snapshot, and those with `# client:`");
}

/// The kubectl that people get when they type it, if it is one that nobody reviewed.
#[test]
fn another_kubectl_ends_as_those_do_that_were_reviewed() {
    for kubectl in kubectls().into_iter().filter(|kubectl| ![BASE, DEBIAN].contains(&kubectl.minor) && !OTHERS.contains(&kubectl.minor)) {
        if kubectl.minor < OLDEST {
            skipped(&format!("kubectl 1.{} is older than the transcript's commands (1.{OLDEST})", kubectl.minor));
            continue;
        }
        if kubectl.path.file_name().is_some_and(|name| name != "kubectl") && std::env::var_os("GATELAB_KUBECTL").is_none() {
            skipped(&format!(
                "kubectl 1.{} at {}: run with GATELAB_KUBECTL set, as it takes minutes",
                kubectl.minor,
                kubectl.path.display()
            ));
            continue;
        }
        let Some(entries) = transcript(&kubectl, &script()) else { continue };
        let nearest = OTHERS.into_iter().chain([BASE]).min_by_key(|minor| minor.abs_diff(kubectl.minor)).unwrap_or(BASE);
        let differences = if nearest == BASE { Ok(Vec::new()) } else { read_differing(&kept(nearest), &script()) };
        let expected = laid_over(&base(), differences.unwrap_or_else(|why| panic!("the snapshot of kubectl 1.{nearest}: {why}")));
        let exits = other_exits(&expected, &entries);
        eprintln!("{}", difference(&expected, &entries));
        skipped(&format!(
            "kubectl 1.{}: the words of {} of {} commands differ from those of 1.{nearest}, which is the nearest that was reviewed; exit codes are held",
            kubectl.minor,
            differing(&expected, &entries).len(),
            entries.len()
        ));
        assert!(exits.is_empty(), "kubectl 1.{}: these end otherwise: {exits:#?}", kubectl.minor);
    }
}
