//! What a person gets who mistypes, or whose machine lacks something: a clear error, what to do, the documented exit
//! code, and nothing left over.

#![allow(clippy::expect_used, reason = "a test fails by panicking, and says on standard error why it is skipped")]

use std::process::Output;

use gatelab_tests::Home;
use rstest::rstest;

const USAGE: i32 = 2;
const SKIPPED: i32 = 4;
const ENVIRONMENT: i32 = 5;
const OUTPUT: i32 = 6;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[rstest]
#[case::scenario(&["run", "wrong-target-prot"], "did you mean `wrong-target-port`")]
#[case::gateway(&["run", "--gateway", "ngnix"], "did you mean `nginx`")]
#[case::provider(&["run", "--cluster", "embeded"], "did you mean `embedded`")]
#[case::show(&["show", "slow-backnd"], "did you mean `slow-backend`")]
#[case::lab(&["kubeconfig", "nowhere"], "nowhere")]
#[case::report(&["report", "no-such-folder"], "no-such-folder")]
fn names_that_do_not_exist_are_told_with_the_nearest_one(#[case] arguments: &[&str], #[case] hint: &str) {
    let output = Home::new().gatelab().args(arguments).output().expect("gatelab starts");
    assert_eq!(output.status.code(), Some(USAGE), "{}", told(&output));
    assert!(told(&output).contains(hint), "{}", told(&output));
}

#[test]
fn a_gateway_that_cannot_be_fetched_says_how_to_get_it() {
    let home = Home::new();
    let output = home
        .gatelab()
        .args(["run", "wrong-target-port", "--gateway", "envoy", "--out"])
        .arg(home.path().join("out"))
        .env("GATELAB_CACHE", home.path().join("cache"))
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", "")
        .output()
        .expect("gatelab starts");
    assert_eq!(output.status.code(), Some(ENVIRONMENT), "{}", told(&output));
    assert!(told(&output).contains("pip") && told(&output).contains("hint:"), "{}", told(&output));
}

/// Nothing is fetched, no cluster is made, and the reason says where it would run.
#[rstest]
#[case::no_images("embedded", "comes as an image alone: `--cluster kind`")]
#[case::nothing_observed("kind", "nothing was observed with ingress-nginx yet")]
fn a_gateway_that_comes_as_an_image_is_skipped_with_the_reason(#[case] cluster: &str, #[case] expected: &str) {
    let home = Home::new();
    let out = home.path().join("out");
    let mut command = home.gatelab();
    command.args(["run", "slow-dependency", "--cluster", cluster, "--gateway", "ingress-nginx", "--json", "--out"]).arg(&out);
    let output = command.output().expect("gatelab starts");
    assert_eq!(output.status.code(), Some(SKIPPED), "{}", told(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 1, "{report:#}");
    let reason = runs[0]["verdict"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(expected), "{report:#}");
}

#[test]
fn a_gateway_that_comes_as_an_image_is_not_fetched() {
    let output = Home::new().gatelab().args(["gateways", "install", "ingress-nginx"]).output().expect("gatelab starts");
    assert_eq!(output.status.code(), Some(ENVIRONMENT), "{}", told(&output));
    assert!(told(&output).contains("registry.k8s.io/ingress-nginx/controller"), "{}", told(&output));
}

#[test]
fn an_output_folder_that_cannot_be_written_is_told_before_anything_runs() {
    let home = Home::new();
    let output = home
        .gatelab()
        .args(["run", "wrong-target-port", "--gateway", "nginx", "--out", "/proc/gatelab-out"])
        .output()
        .expect("gatelab starts");
    assert_eq!(output.status.code(), Some(OUTPUT), "{}", told(&output));
    assert!(told(&output).contains("/proc/gatelab-out"), "{}", told(&output));
}

/// /dev/full refuses every write with ENOSPC, as a full disk does.
#[test]
fn a_full_disk_is_told_as_such() {
    let home = Home::new();
    let out = home.path().join("out");
    std::fs::create_dir(&out).expect("a folder");
    std::os::unix::fs::symlink("/dev/full", out.join("events.jsonl")).expect("a link");
    let output =
        home.gatelab().args(["run", "wrong-target-port", "--gateway", "nginx", "--out"]).arg(&out).output().expect("gatelab starts");
    assert_eq!(output.status.code(), Some(OUTPUT), "{}", told(&output));
    assert!(told(&output).contains("No space left on device"), "{}", told(&output));
}

/// A manifest of a kind that nobody serves is found where it stands, not by a run that hangs.
#[test]
fn a_manifest_of_a_kind_that_is_not_served_names_it() {
    let home = Home::new();
    let folder = home.path().join("scenarios");
    copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios").as_ref(), &folder);
    let manifest = "apiVersion: example.org/v1\nkind: Wombat\nmetadata: { name: shop, namespace: shop }\n";
    std::fs::write(folder.join("_apps/shop/zz-wombat.yaml"), manifest).expect("a file");
    let output = home
        .gatelab()
        .args(["run", "wrong-target-port", "--gateway", "nginx", "--scenarios"])
        .arg(&folder)
        .arg("--out")
        .arg(home.path().join("out"))
        .output()
        .expect("gatelab starts");
    assert!(!output.status.success());
    assert!(told(&output).contains("Wombat") && told(&output).contains("example.org/v1"), "{}", told(&output));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() { copy(&entry.path(), &target) } else { drop(std::fs::copy(entry.path(), target)) }
    }
}
