//! Whatever kills the harness, nothing of a run is left a second later: the lab's first process watches the harness and
//! takes its pid namespace with it.
//!
//! A file of its own, with one test: it makes itself the parent of all orphans, so that every process left by a killed
//! harness is its descendant.

#![allow(clippy::expect_used, reason = "a test fails by panicking, and says on standard error why it is skipped")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use gatelab_tests::{Home, Leftovers, adopt_orphans, mounts};

/// Spread over a whole run, from before the lab's first process to after the last fix.
const MOMENTS: u32 = 24;

#[test]
fn sigkill_at_any_moment_leaves_nothing_running() {
    adopt_orphans();
    let mounts_before = mounts();
    let whole_run = run_to_its_end();
    let mut seen_at_work = 0;
    for moment in 0..MOMENTS {
        let home = Home::new();
        let mut harness = home
            .gatelab()
            .args(["run", "wrong-target-port", "--gateway", "nginx", "--out"])
            .arg(home.path().join("out"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("gatelab starts");
        std::thread::park_timeout(whole_run * moment / MOMENTS);
        let at_work = Leftovers::now(&mounts_before).processes.len();
        seen_at_work += usize::from(at_work > 2);
        harness.kill().expect("SIGKILL");
        harness.wait().expect("the harness is reaped");
        let left = Leftovers::after(&mounts_before, Duration::from_secs(1));
        assert_eq!(left, Leftovers::default(), "left a second after SIGKILL at moment {moment} of {MOMENTS}");
    }
    assert!(seen_at_work > MOMENTS as usize / 2, "most kills must hit a running lab to prove anything; {seen_at_work} of {MOMENTS} did");
}

fn run_to_its_end() -> Duration {
    let home = Home::new();
    let started = Instant::now();
    let status = home
        .gatelab()
        .args(["run", "wrong-target-port", "--gateway", "nginx", "--out"])
        .arg(home.path().join("out"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("gatelab starts");
    assert!(status.success(), "the undisturbed run must succeed: {status}");
    started.elapsed()
}
