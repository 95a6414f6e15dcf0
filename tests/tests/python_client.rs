//! Python's official client (`kubernetes` on PyPI) against a lab: list, watch, patch, exec, log, port-forward.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::process::Command;

use gatelab_tests::{Home, skipped};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python_client.py");
const PARTS: [&str; 6] = ["listing", "watching", "patching", "executing", "logging", "forwarding"];

/// A Python that has the client: the machine's own, or that of `GATELAB_PYTHON`. Nothing is installed by a test.
fn python() -> Option<String> {
    let named = std::env::var("GATELAB_PYTHON").ok();
    named.into_iter().chain(["python3".to_owned()]).find(|python| {
        let found = Command::new(python).args(["-c", "import kubernetes.stream"]).output();
        found.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn the_official_python_client_works_as_on_any_cluster() {
    let Some(python) = python() else {
        skipped(
            "no Python with the package `kubernetes` (python3 -m venv DIR && DIR/bin/pip install kubernetes, then \
             GATELAB_PYTHON=DIR/bin/python)",
        );
        return;
    };
    let home = Home::new();
    let up = home.gatelab().args(["up", "wrong-target-port", "--phase", "healthy", "--gateway", "nginx"]).output().expect("gatelab starts");
    assert!(up.status.success(), "up: {}", String::from_utf8_lossy(&up.stderr));
    let kubeconfig = String::from_utf8_lossy(&up.stdout).trim().to_owned();
    let output = Command::new(python).arg(SCRIPT).env("KUBECONFIG", kubeconfig).output().expect("Python starts");
    let _ = home.gatelab().args(["down", "--all"]).output();
    let told = String::from_utf8_lossy(&output.stdout);
    let passed: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("passed: ")).collect();
    assert!(output.status.success() && passed == PARTS, "{told}\n{}", String::from_utf8_lossy(&output.stderr));
}
