//! `--gateway NAME@BUILD`: runs on the build that is named, and runs without those that cannot be had.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Output;

use gatelab_tests::{Home, skipped};
use serde_json::Value;

/// What `gatelab gateways --json` knows of a gateway here.
struct Found {
    version: String,
    binary: PathBuf,
}

fn found(home: &Home, gateway: &str) -> Option<Found> {
    let output = home.gatelab().args(["gateways", "--json"]).output().expect("gatelab starts");
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let entry = list.as_array()?.iter().find(|entry| entry["gateway"] == gateway)?;
    Some(Found { version: entry["version"].as_str()?.to_owned(), binary: entry["binary"].as_str()?.into() })
}

fn labs_cannot_run(home: &Home) -> bool {
    let fit = home.gatelab().arg("doctor").output().expect("gatelab starts").status.success();
    if !fit {
        skipped("this machine cannot run labs (see `gatelab doctor`)");
    }
    !fit
}

fn told(output: &Output) -> String {
    format!("{}\n{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr), output.status)
}

/// Gateway, version and verdict of every run.
fn runs(output: &Output) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no report: {error}\n{}", told(output)));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let runs = report["runs"].as_array().expect("runs");
    runs.iter().map(|run| (text(&run["gateway"]), text(&run["gateway_version"]), text(&run["verdict"]["is"]))).collect()
}

#[test]
fn a_run_takes_the_binary_that_is_named_and_reports_its_version() {
    let home = Home::new();
    if labs_cannot_run(&home) {
        return;
    }
    let Some(nginx) = found(&home, "nginx") else {
        skipped("there is no nginx here yet (`gatelab gateways install nginx`)");
        return;
    };
    // A copy elsewhere, so that it cannot be taken for the one that would be found anyway.
    let copy = home.path().join("build/nginx");
    std::fs::create_dir(copy.parent().expect("a folder")).expect("a folder");
    std::fs::copy(&nginx.binary, &copy).expect("a copy");
    let output = home
        .gatelab()
        .args(["run", "wrong-target-port", "--json", "--gateway"])
        .arg(format!("nginx@{}", copy.display()))
        .arg("--out")
        .arg(home.path().join("out"))
        // Nothing else may be looked for.
        .env("GATELAB_CACHE", home.path().join("cache"))
        .output()
        .expect("gatelab starts");
    assert_eq!(runs(&output), [("nginx".to_owned(), nginx.version, "proven".to_owned())], "{}", told(&output));
    assert!(!home.path().join("cache/nginx").exists(), "another nginx was fetched");
}

#[test]
fn gateways_that_cannot_be_had_are_skipped_unless_they_are_named() {
    let home = Home::new();
    if labs_cannot_run(&home) {
        return;
    }
    let (Some(nginx), cache) = (found(&home, "nginx"), home.path().join("cache")) else {
        skipped("there is no nginx here yet (`gatelab gateways install nginx`)");
        return;
    };
    // A cache with nginx alone, and package clients that have nothing.
    std::fs::create_dir_all(&cache).expect("a folder");
    if let Some(place) = nginx.binary.ancestors().find(|folder| folder.ends_with("nginx") && folder.join("../nginx.lock").is_file()) {
        std::os::unix::fs::symlink(place, cache.join("nginx")).expect("a link");
    }
    let clients = home.path().join("clients");
    refusing(&clients, "apt-get", "E: Unable to locate package haproxy");
    refusing(&clients, "python3", "nothing is to be had");
    refusing(&clients, "pip", "nothing is to be had");
    refusing(&clients, "pip3", "nothing is to be had");
    let run = |gateways: &[&str]| {
        home.gatelab()
            .args(["run", "selector-mismatch", "--json", "--out"])
            .arg(home.path().join("out"))
            .args(gateways)
            .env("GATELAB_CACHE", &cache)
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", clients.display()))
            .env("PIP_NO_INDEX", "1")
            .output()
            .expect("gatelab starts")
    };
    let output = run(&[]);
    let runs = runs(&output);
    let verdict = |gateway: &str| runs.iter().find(|run| run.0 == gateway).map(|run| run.2.clone());
    assert_eq!((runs.len(), verdict("nginx").as_deref()), (4, Some("proven")), "{}", told(&output));
    assert!(output.status.success(), "{}", told(&output));
    for gateway in ["envoy", "haproxy", "traefik"] {
        // One that the machine has installed is run.
        let installed =
            ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"].iter().any(|folder| Path::new(folder).join(gateway).exists());
        assert_eq!(verdict(gateway).as_deref(), Some(if installed { "proven" } else { "skipped" }), "{gateway}: {}", told(&output));
        if !installed {
            let named = run(&["--gateway", gateway]);
            assert_eq!(named.status.code(), Some(5), "{gateway}: {}", told(&named));
        }
    }
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("envoy cannot be had here: "), "{report}");
}

fn refusing(folder: &Path, name: &str, words: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(folder).expect("a folder");
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\necho '{words}'\nexit 1\n")).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}
