//! Whatever kills the harness, nothing of a run is left a second later: the lab's first process watches the harness and
//! takes its pid namespace with it.
//!
//! A file of its own, with one test: it makes itself the parent of all orphans, so that every process left by a killed
//! harness is its descendant.

#![allow(clippy::expect_used, reason = "a test fails by panicking, and says on standard error why it is skipped")]

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gatelab_tests::{Home, Leftovers, adopt_orphans, mounts};

/// Spread over the lab's life, from its first process to after the last fix.
const MOMENTS: u32 = 20;
/// How long a lab lives changes with what else the machine does: each round measures it anew, and more rounds are made
/// while too few kills have hit a living one.
const ROUNDS: u32 = 4;
/// Kills that must hit a living lab, to prove anything.
const AT_WORK: usize = 14;

#[test]
fn sigkill_at_any_moment_leaves_nothing_running() {
    adopt_orphans();
    let mounts_before = mounts();
    let mut at_work = 0;
    for _ in 0..ROUNDS {
        let life = life_of_a_lab(&mounts_before);
        // Before there is a lab, too.
        for moment in 0..4 {
            let (home, harness) = start();
            std::thread::park_timeout(life * moment / MOMENTS);
            kill(harness, &mounts_before);
            drop(home);
        }
        for moment in 0..MOMENTS {
            let (home, mut harness) = start();
            wait_for_the_lab(&mut harness, &mounts_before);
            std::thread::park_timeout(life * moment / MOMENTS);
            at_work += usize::from(kill(harness, &mounts_before));
            drop(home);
        }
        if at_work >= AT_WORK {
            return;
        }
    }
    panic!("{AT_WORK} kills at least must hit a living lab to prove anything; {at_work} of {} did", ROUNDS * MOMENTS);
}

fn start() -> (Home, Child) {
    let home = Home::new();
    let harness = home
        .gatelab()
        .args(["run", "wrong-target-port", "--gateway", "nginx", "--out"])
        .arg(home.path().join("out"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gatelab starts");
    (home, harness)
}

/// Until the lab has its first process or the run has ended.
fn wait_for_the_lab(harness: &mut Child, mounts_before: &BTreeSet<String>) {
    while !lab_is_alive(mounts_before) && harness.try_wait().expect("the harness is a child").is_none() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The harness itself is one process.
fn lab_is_alive(mounts_before: &BTreeSet<String>) -> bool {
    Leftovers::now(mounts_before).processes.len() > 1
}

/// Returns whether the lab was alive.
fn kill(mut harness: Child, mounts_before: &BTreeSet<String>) -> bool {
    let alive = lab_is_alive(mounts_before);
    harness.kill().expect("SIGKILL");
    harness.wait().expect("the harness is reaped");
    let left = Leftovers::after(mounts_before, Duration::from_secs(1));
    assert_eq!(left, Leftovers::default(), "left a second after SIGKILL");
    alive
}

fn life_of_a_lab(mounts_before: &BTreeSet<String>) -> Duration {
    let (_home, mut harness) = start();
    wait_for_the_lab(&mut harness, mounts_before);
    let started = Instant::now();
    let status = harness.wait().expect("the harness is reaped");
    assert!(status.success(), "the undisturbed run must succeed: {status}");
    started.elapsed()
}
