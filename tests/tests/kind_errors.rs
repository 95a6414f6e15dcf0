//! What people are told when kind or its engine does not do its work. `kind` and `docker` are scripts here that say what the real
//! ones say; everything else is the real thing, down to the exit code.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use gatelab_tests::Home;
use rstest::rstest;

/// The engine answers, kind makes a cluster and takes it away, and one step goes wrong.
const DOCKER: &str = "case $1 in version) echo 27.0;; esac";
const KIND: &str = "case \"$1\" in create) mkdir -p \"$CLUSTERS/x\";; esac";

/// A lab's cluster is named after the lab, and its folder is the user's own.
fn name_of(home: &Home) -> String {
    home.path().file_name().expect("a name").to_string_lossy().to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

fn gatelab(home: &Home, kind: Option<&str>, docker: &str, arguments: &[&str]) -> Command {
    let bin = home.path().join("bin");
    std::fs::create_dir_all(&bin).expect("a folder");
    let program = |name: &str, script: &str| {
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a script");
        path
    };
    program("docker", docker);
    let mut command: Command = home.gatelab();
    let kind = kind.map(|kind| program("kind", kind)).unwrap_or_else(|| bin.join("no-kind"));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("PATH"));
    command
        .args(arguments)
        .env("PATH", path)
        .env("GATELAB_KIND", kind)
        .env("KIND_EXPERIMENTAL_PROVIDER", "docker")
        .env("GATELAB_NODE_IMAGE", "test/node:1")
        .env("GATELAB_KIND_WITHIN", "3")
        .env("CLUSTERS", home.path());
    command
}

#[rstest]
#[case::kind_is_missing(None, DOCKER, "`kind` was not found", "build.sh")]
#[case::docker_is_not_running(
    Some(KIND),
    "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2; exit 1",
    "docker does not answer",
    "systemctl start docker"
)]
#[case::docker_is_not_permitted(
    Some(KIND),
    "echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1",
    "may not be used by this user",
    "usermod -aG docker"
)]
#[case::a_port_is_taken(
    Some("case $1 in create) echo 'docker: Error: Bind for 127.0.0.1:30080 failed: port is already allocated.' >&2; exit 1;; esac"),
    DOCKER,
    "a port that the cluster needs is in use",
    "down --all"
)]
#[case::the_node_image_cannot_be_pulled(
    Some("case $1 in create) echo 'ERROR: failed to create cluster: failed to pull image \"test/node:1\"' >&2; exit 1;; esac"),
    DOCKER,
    "the node image test/node:1 is not here and cannot be pulled",
    "build.sh"
)]
#[case::the_disk_is_full(
    Some("case $1 in create) echo 'Error: write /var/lib/x: no space left on device' >&2; exit 1;; esac"),
    DOCKER,
    "the disk is full",
    "make room"
)]
#[case::kubernetes_does_not_start(
    Some("case $1 in create) echo 'ERROR: failed to create cluster: failed to init node with kubeadm' >&2; exit 1;; esac"),
    DOCKER,
    "Kubernetes does not start in the node",
    "memory"
)]
#[case::a_node_is_never_ready(Some("case $1 in create) exec sleep 600;; esac"), DOCKER, "was not over after 3s", "GATELAB_KIND_WITHIN")]
#[case::an_image_cannot_be_loaded(
    Some("case $1 in load) echo 'ERROR: failed to load image: command \"ctr images import\" failed' >&2; exit 1;; esac"),
    DOCKER,
    "the nodes do not take the images",
    "down --all"
)]
#[case::the_disk_is_full_when_loading(
    Some("case $1 in load) echo 'ctr: failed to ingest: no space left on device' >&2; exit 1;; esac"),
    DOCKER,
    "the disk is full",
    "make room"
)]
fn what_went_wrong_and_what_to_do_is_said(#[case] kind: Option<&str>, #[case] docker: &str, #[case] what: &str, #[case] to_do: &str) {
    for command in ["run", "up"] {
        let home = Home::new();
        let out = home.path().join("out").display().to_string();
        let name = name_of(&home);
        let mut arguments = vec![command, "wrong-target-port", "--gateway", "nginx", "--cluster", "kind"];
        arguments.extend(if command == "run" { ["--out", &out] } else { ["--name", &name] });
        let output = gatelab(&home, kind, docker, &arguments).output().expect("gatelab starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{command}: the environment is at fault: {said}");
        assert!(said.contains(what), "{command}: {said}");
        let hint = said.lines().filter(|line| line.starts_with("hint: ")).collect::<String>();
        assert!(hint.contains(to_do), "{command}: {said}");
        let labs = home.gatelab().args(["kubeconfig"]).output().expect("gatelab starts");
        assert_eq!(labs.status.code(), Some(5), "{command}: no lab is left on record");
    }
}

/// Two sessions of one user, which know nothing of each other's labs, share the engine and the cache folder.
#[test]
fn a_cluster_that_another_gatelab_is_making_is_left_alone() {
    let (first_home, second_home) = (Home::new(), Home::new());
    let name = name_of(&first_home);
    let arguments = ["up", "wrong-target-port", "--gateway", "nginx", "--cluster", "kind", "--name", &name];
    let mut first = gatelab(&first_home, Some("case $1 in create) exec sleep 600;; esac"), DOCKER, &arguments)
        .env("GATELAB_KIND_WITHIN", "600")
        .stderr(Stdio::piped())
        .spawn()
        .expect("gatelab starts");
    let mut told = BufReader::new(first.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(told.any(|line| line.starts_with("kind: creating cluster")), "it never began");
    let writes = format!("echo \"$*\" >> {}", second_home.path().join("asked").display());
    let output = gatelab(&second_home, Some(&writes), DOCKER, &arguments).output().expect("gatelab starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ended = first.try_wait().expect("a child");
    let asked = std::fs::read_to_string(second_home.path().join("asked")).unwrap_or_default();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first.id().cast_signed()), nix::sys::signal::Signal::SIGTERM).expect("a child");
    first.wait().expect("a child");
    assert_eq!(ended, None, "the first goes on: {said}");
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("is being made by another gatelab") && said.contains("choose another --name"), "{said}");
    assert!(!asked.contains("delete") && !asked.contains("create"), "kind was asked for more than its clusters: {asked}");
}

/// The tool for everybody's clusters must not be pointed at everybody's clusters.
#[test]
fn a_context_that_does_not_look_like_a_lab_is_refused_before_anything_is_done() {
    let home = Home::new();
    let kubeconfig = home.path().join("config");
    let text = "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n\
                contexts: [{name: production, context: {cluster: c, user: u}}]\ncurrent-context: production\n";
    std::fs::write(&kubeconfig, text).expect("a file");
    let run = |arguments: &[&str]| {
        let mut command = home.gatelab();
        command.args(["up", "wrong-target-port"]).args(arguments).env("KUBECONFIG", &kubeconfig);
        let output = command.output().expect("gatelab starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["--cluster", "context:production"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("does not look like a lab") && said.contains("--any-context"), "{said}");
    let (code, said) = run(&["--cluster", "context:elsewhere"]);
    assert!(code == Some(2) && said.contains("there are: production"), "{said}");
    let (code, said) = run(&["--cluster", "context:production", "--any-context"]);
    assert!(code == Some(5) && said.contains("Connection refused"), "allowed, it is tried: {said}");
    assert_eq!(std::fs::read_to_string(&kubeconfig).expect("the file"), text, "the user's own file stays as it was");
}
