//! Real Kubernetes: the same scenarios on kind and on the embedded cluster, and nothing left of clusters whose maker was killed.
//! Needs kind, an engine and a node image; says so when it skips.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, shows how the providers differ, and has a thread to itself"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gatelab_tests::{Home, skipped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A cache of its own, so that `down --all` finds no cluster but the test's; what takes long to get is the user's.
struct Kind {
    home: Home,
    kind: PathBuf,
    engine: String,
}

fn user_cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    variable("GATELAB_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("gatelab")))
        .or_else(|| Some(variable("HOME")?.join(".cache/gatelab")))
        .unwrap_or_default()
}

impl Kind {
    /// `None`, and a word about it, where the machine has not all that it takes.
    fn find() -> Option<Self> {
        let skipped = |why: &str| skipped(&format!("NOT tested on real Kubernetes: {why}; docs/kind.md says what it takes"));
        if std::env::var_os("GATELAB_SKIP_KIND").is_some() {
            skipped("GATELAB_SKIP_KIND is set");
            return None;
        }
        let cache = user_cache();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).map(|folder| folder.join("kind"));
        let named = std::env::var_os("GATELAB_KIND").map(PathBuf::from);
        let candidates = named.into_iter().chain(on_path).chain([cache.join("kind-node-image/bin/kind")]);
        let Some(kind) = candidates.into_iter().find(|path| path.is_file()) else {
            skipped("there is no kind");
            return None;
        };
        let wanted = std::env::var("KIND_EXPERIMENTAL_PROVIDER").ok();
        let engines = wanted.map_or_else(|| vec!["docker".to_owned(), "podman".to_owned()], |engine| vec![engine]);
        for engine in engines {
            let this = Kind { home: Home::new(), kind: kind.clone(), engine };
            for name in ["nginx", "envoy", "podman", "kind-node-image"] {
                let _ = std::os::unix::fs::symlink(cache.join(name), this.home.path().join(name));
            }
            let images = this.engine(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
            if images.lines().any(|image| image.contains("gatelab/kind-node:")) || std::env::var_os("GATELAB_NODE_IMAGE").is_some() {
                return Some(this);
            }
        }
        skipped("no engine that answers has a node image");
        None
    }

    fn engine(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.engine);
        let settings = self.home.path().join("podman/containers.conf");
        if self.engine == "podman" && std::env::var_os("CONTAINERS_CONF").is_none() && settings.is_file() {
            command.env("CONTAINERS_CONF", settings);
        }
        let output = command.args(arguments).stderr(Stdio::null()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    fn gatelab(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.gatelab();
        command.args(arguments).env("GATELAB_CACHE", self.home.path()).env("GATELAB_KIND", &self.kind);
        command.env("KIND_EXPERIMENTAL_PROVIDER", &self.engine);
        command.stdout(Stdio::null()).stderr(std::fs::File::create(self.home.path().join("said")).expect("a file"));
        command
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.home.path().join("said")).unwrap_or_default()
    }

    /// Folders of this test's clusters: each goes when no container of its cluster is left.
    fn left(&self) -> Vec<String> {
        let folders = std::fs::read_dir(self.home.path().join("kind")).into_iter().flatten().flatten();
        let names: Vec<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.iter().map(|name| format!("folder {name}")).collect()
    }

    fn until(&self, child: &mut Child, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(300);
        while !self.said().contains(what) {
            assert!(child.try_wait().expect("a child").is_none() && Instant::now() < deadline, "never came to {what:?}: {}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        let _ = self.gatelab(&["down", "--all"]).status();
    }
}

fn kubeconfig_of_the_user() -> Option<Vec<u8>> {
    std::fs::read(Path::new(&std::env::var_os("HOME")?).join(".kube/config")).ok()
}

/// One after the other: each takes a gigabyte and a core or two.
#[test]
fn real_kubernetes() {
    let Some(kind) = Kind::find() else { return };
    let before = kubeconfig_of_the_user();
    killed_half_way(&kind, "preparing nodes", &["run", "wrong-target-port", "--gateway", "nginx", "--cluster", "kind"]);
    a_trainee_s_cluster(&kind);
    parity(&kind);
    assert_eq!(kubeconfig_of_the_user(), before, "the user's own kubeconfig is as it was");
}

/// SIGKILL while nodes are made: kind goes on by itself, and is ended.
fn killed_half_way(kind: &Kind, at: &str, arguments: &[&str]) {
    let out = kind.home.path().join("out").display().to_string();
    let mut child = kind.gatelab(&[arguments, &["--out", &out]].concat()).spawn().expect("gatelab starts");
    kind.until(&mut child, at);
    let cluster = std::fs::read_dir(kind.home.path().join("kind")).expect("a folder").flatten().next().expect("a cluster's folder");
    let cluster = cluster.file_name().to_string_lossy().into_owned();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).expect("the child");
    child.wait().expect("the child");
    assert!(kind.gatelab(&["down", "--all"]).status().expect("gatelab starts").success(), "{}", kind.said());
    nothing_is_left(kind, &cluster);
    // What kind had begun would have come to light by now.
    std::thread::sleep(Duration::from_secs(5));
    nothing_is_left(kind, &cluster);
}

fn nothing_is_left(kind: &Kind, cluster: &str) {
    assert!(kind.left().is_empty(), "{:?}", kind.left());
    let containers = kind.engine(&["ps", "--all", "--format", "{{.Names}}"]);
    assert!(!containers.contains(cluster), "{containers}");
}

/// `up`, the gateway on loopback, `status`, and SIGKILL of nobody: `down` of a lab that is in use.
fn a_trainee_s_cluster(kind: &Kind) {
    let up = kind.gatelab(&["up", "wrong-target-port", "--phase", "fault", "--cluster", "kind", "--name", "trainee"]).status();
    assert!(up.expect("gatelab starts").success(), "{}", kind.said());
    let said = kind.said();
    let address = said.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("the gateway's address").to_owned();
    let answer = request(&address);
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let status = kind.gatelab(&["status", "trainee"]).status().expect("gatelab starts");
    assert_eq!(status.code(), Some(1), "red: {}", kind.said());
    assert!(kind.gatelab(&["down", "trainee"]).status().expect("gatelab starts").success(), "{}", kind.said());
    nothing_is_left(kind, "gatelab-lab-trainee");
}

fn request(address: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("the gateway on loopback");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").expect("sending");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// The same scenarios on both providers, and what differs.
fn parity(kind: &Kind) {
    let run = |provider: &str| {
        let out = kind.home.path().join(format!("out-{provider}")).display().to_string();
        let ids = ["wrong-target-port", "networkpolicy-blocks-gateway", "tls-to-http-backend"];
        let arguments = [&["run"][..], &ids, &["--gateway", "nginx,envoy", "--cluster", provider, "--out", &out]].concat();
        let status = kind.gatelab(&arguments).status().expect("gatelab starts");
        assert!(status.success(), "{provider}: {}", kind.said());
        out
    };
    let (real, embedded) = (run("kind"), run("embedded"));
    let difference = kind.home.gatelab().args(["diff", &embedded, &real]).output().expect("gatelab starts");
    // Shown by `cargo test -- --nocapture`; both sides are proven, so what differs is no signature.
    eprintln!("{}", String::from_utf8_lossy(&difference.stdout));
    assert!(matches!(difference.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&difference.stderr));
    assert!(kind.left().is_empty(), "{:?}", kind.left());
}
