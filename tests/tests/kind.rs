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
            for name in ["nginx", "envoy", "haproxy", "traefik", "tools", "podman", "kind-node-image"] {
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
        let output = self.set_up(Command::new(&self.engine)).args(arguments).stderr(Stdio::null()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    /// As `gatelab` calls the engine, and kind.
    fn set_up(&self, mut command: Command) -> Command {
        let settings = self.home.path().join("podman/containers.conf");
        if self.engine == "podman" && std::env::var_os("CONTAINERS_CONF").is_none() && settings.is_file() {
            command.env("CONTAINERS_CONF", settings);
        }
        command.env("KIND_EXPERIMENTAL_PROVIDER", &self.engine);
        command
    }

    fn kind(&self, arguments: &[&str]) -> bool {
        let mut command = self.set_up(Command::new(&self.kind));
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
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
    for moment in [Moment::Said("preparing nodes"), Moment::Said("loading images"), Moment::Phase("fault")] {
        killed_half_way(&kind, moment);
    }
    a_trainee_s_cluster(&kind);
    somebody_else_s_cluster(&kind);
    parity(&kind);
    assert_eq!(kubeconfig_of_the_user(), before, "the user's own kubeconfig is as it was");
}

/// When a run is killed.
#[derive(Clone, Copy)]
enum Moment {
    /// Once it has said this.
    Said(&'static str),
    /// Once this phase has begun.
    Phase(&'static str),
}

impl Kind {
    /// Runs, and kills the run at the moment.
    fn kill_at(&self, moment: Moment, arguments: &[&str]) {
        let out = self.home.path().join("out-killed");
        let _ = std::fs::remove_dir_all(&out);
        let mut command = self.gatelab(&[arguments, &["--out", &out.display().to_string()]].concat());
        let mut child = command.spawn().expect("gatelab starts");
        match moment {
            Moment::Said(what) => self.until(&mut child, what),
            Moment::Phase(phase) => self.until_phase(&mut child, &out, phase),
        }
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).expect("the child");
        child.wait().expect("the child");
    }

    fn until_phase(&self, child: &mut Child, out: &Path, phase: &str) {
        let begun = format!("\"phase\":\"{phase}\"");
        let deadline = Instant::now() + Duration::from_secs(600);
        while !std::fs::read_to_string(out.join("events.jsonl")).unwrap_or_default().contains(&begun) {
            assert!(child.try_wait().expect("a child").is_none() && Instant::now() < deadline, "{}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// SIGKILL while nodes are made (kind goes on by itself, and is ended), while images are loaded, and with the fault in.
fn killed_half_way(kind: &Kind, moment: Moment) {
    kind.kill_at(moment, &["run", "wrong-target-port", "--gateway", "nginx", "--cluster", "kind"]);
    let cluster = std::fs::read_dir(kind.home.path().join("kind")).expect("a folder").flatten().next().expect("a cluster's folder");
    let cluster = cluster.file_name().to_string_lossy().into_owned();
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
    // Labs of other processes may be in it.
    let network = kind.engine(&["network", "ls", "--format", "{{.Name}}"]).lines().any(|name| name == "gatelab-kind");
    let others = kind.engine(&["ps", "--all", "--quiet", "--filter", "network=gatelab-kind"]);
    assert!(!network || !others.trim().is_empty(), "the network of labs goes with the last of them");
}

/// A cluster that the lab is a guest in, which goes whatever happens.
struct Guest<'a> {
    kind: &'a Kind,
    name: String,
    kubeconfig: String,
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.kind.kind(&["delete", "cluster", "--name", &self.name, "--kubeconfig", &self.kubeconfig]);
    }
}

impl Guest<'_> {
    fn gatelab(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let status = self.kind.gatelab(arguments).env("KUBECONFIG", &self.kubeconfig).status().expect("gatelab starts");
        (status.code(), self.kind.said())
    }

    /// What is in the cluster that kind did not put there.
    fn foreign(&self) -> String {
        let node = format!("{}-control-plane", self.name);
        let list = |what: &str| {
            let kubectl = ["exec", &node, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", what, "--output", "name"];
            self.kind.engine(&kubectl)
        };
        let (namespaces, roles) = (list("namespaces"), list("clusterroles,ingressclasses"));
        assert!(namespaces.contains("namespace/kube-system"), "{namespaces}");
        let of_labs = |line: &&str| ["/shop", "/gateway", "/clients"].iter().any(|end| line.ends_with(end));
        namespaces.lines().chain(roles.lines()).filter(of_labs).collect::<Vec<_>>().join(" ")
    }
}

/// `context:NAME`: killed runs leave nothing that the next run, or `down --all`, does not take away; a gateway out of a named image.
fn somebody_else_s_cluster(kind: &Kind) {
    let name = format!("gatelab-guest-{}", std::process::id());
    let kubeconfig = kind.home.path().join("kubeconfig-of-the-guest").display().to_string();
    let guest = Guest { kind, name: name.clone(), kubeconfig: kubeconfig.clone() };
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../kind-config/one-node.yaml");
    let images = kind.engine(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let built = images.lines().find(|image| image.contains("gatelab/kind-node:")).map(str::to_owned);
    let image = std::env::var("GATELAB_NODE_IMAGE").ok().or(built).expect("looked for before");
    let arguments = ["create", "cluster", "--name", &name, "--config", file, "--kubeconfig", &kubeconfig, "--image", &image];
    assert!(kind.kind(&[&arguments[..], &["--wait", "300s"]].concat()), "kind makes a cluster");

    let context = format!("context:kind-{name}");
    let run = ["run", "wrong-target-port", "--gateway", "nginx", "--cluster", &context];
    if let Some(archive) = image_with_nginx(kind) {
        assert!(kind.kind(&["load", "image-archive", &archive, "--name", &name]), "kind loads an archive");
        let out = kind.home.path().join("out-image").display().to_string();
        let (code, said) = guest.gatelab(&[&run[..], &["--gateway-image", &format!("nginx={IMAGE}"), "--out", &out]].concat());
        assert_eq!(code, Some(0), "{said}");
        let events = std::fs::read_to_string(Path::new(&out).join("events.jsonl")).expect("events");
        assert!(events.contains(&format!(" of {IMAGE}")), "the report says which image it was");
    }
    let (code, said) = guest.gatelab(&[&run[..], &["--gateway-image", "nginx=registry.invalid/nginx:none"]].concat());
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("registry.invalid/nginx:none") && said.contains("ImagePull") && said.contains("hint: "), "{said}");
    assert_eq!(guest.foreign(), "", "{said}");

    let killed = || {
        // As `gatelab`, for which the environment is set by name.
        let out = kind.home.path().join("out-killed");
        let _ = std::fs::remove_dir_all(&out);
        let mut command = kind.gatelab(&[&run[..], &["--out", &out.display().to_string()]].concat());
        let mut child = command.env("KUBECONFIG", &kubeconfig).spawn().expect("gatelab starts");
        kind.until_phase(&mut child, &out, "fault");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).expect("the child");
        child.wait().expect("the child");
        assert!(guest.foreign().contains("namespace/shop"), "killed with the fault in");
    };
    killed();
    let out = kind.home.path().join("out-next").display().to_string();
    let (code, said) = guest.gatelab(&[&run[..], &["--out", &out]].concat());
    assert!(code == Some(0) && said.contains("had left"), "{said}");
    assert_eq!(guest.foreign(), "", "{said}");
    killed();
    let (code, said) = guest.gatelab(&["down", "--all"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(guest.foreign(), "", "{said}");
}

/// No registry has it.
const IMAGE: &str = "registry.invalid/nginx:test";

/// An image as others make them, of the nginx that the lab uses: Debian's files, a user without rights, no lab in it. `None` where the
/// nginx is not one that was unpacked into the cache.
fn image_with_nginx(kind: &Kind) -> Option<String> {
    let unpacked = std::fs::read_dir(kind.home.path().join("nginx")).ok()?.flatten().map(|entry| entry.path().join("root"));
    let nginx = unpacked.map(|root| root.join("usr/sbin/nginx")).find(|nginx| nginx.is_file())?;
    let folder = kind.home.path().join("image");
    for inside in ["usr/sbin", "tmp", "var/log/nginx", "etc"] {
        std::fs::create_dir_all(folder.join(inside)).expect("a folder");
    }
    std::fs::copy(&nginx, folder.join("usr/sbin/nginx")).expect("nginx");
    std::fs::write(folder.join("etc/passwd"), "root:x:0:0::/:/\n").expect("a file");
    std::fs::write(folder.join("etc/group"), "root:x:0:\n").expect("a file");
    let libraries = Command::new("ldd").arg(&nginx).output().ok()?.stdout;
    for library in String::from_utf8_lossy(&libraries).split_whitespace().filter(|word| word.starts_with('/')) {
        let target = folder.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent()?).expect("a folder");
        std::fs::copy(library, target).expect("a library");
    }
    let root = kind.home.path().join("image-root.tar").display().to_string();
    let packed = Command::new("tar").args(["-C", &folder.display().to_string(), "-cf", &root, "."]).status();
    assert!(packed.is_ok_and(|status| status.success()), "tar packs a folder");
    let archive = kind.home.path().join("image.tar").display().to_string();
    kind.engine(&["import", "--change", "USER 101", &root, IMAGE]);
    kind.engine(&["save", "-o", &archive, IMAGE]);
    kind.engine(&["rmi", IMAGE]);
    assert!(Path::new(&archive).is_file(), "{} makes an archive", kind.engine);
    Some(archive)
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

/// The same scenarios on both providers, and what differs: a handful, or with `GATELAB_KIND_CATALOGUE` set all of them on all gateways,
/// which takes an hour or more. On three nodes, of which all that the lab needs there is to stay from run to run.
fn parity(kind: &Kind) {
    let run = |provider: &str| {
        let out = kind.home.path().join(format!("out-{provider}")).display().to_string();
        let ids = ["wrong-target-port", "networkpolicy-blocks-gateway", "tls-to-http-backend"];
        let all = std::env::var_os("GATELAB_KIND_CATALOGUE").is_some();
        let which: Vec<&str> = if all { Vec::new() } else { [&ids[..], &["--gateway", "nginx,envoy"]].concat() };
        let cluster: &[&str] = match (provider, all) {
            ("kind", false) => &["--retain", "--nodes", "3"],
            // As many nodes as the scenarios ask for
            ("kind", true) => &["--retain"],
            _ => &[],
        };
        let arguments = [&["run"][..], &which, &["--cluster", provider, "--out", &out], cluster].concat();
        let status = kind.gatelab(&arguments).status().expect("gatelab starts");
        assert!(status.success(), "{provider}: {}", kind.said());
        out
    };
    let real = run("kind");
    let cluster = kind.left().pop().and_then(|folder| folder.strip_prefix("folder ").map(str::to_owned)).expect("a retained cluster");
    let node = format!("{cluster}-control-plane");
    let kubectl = ["exec", &node, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"];
    // A link's agent without its role goes on until its watch ends, minutes later.
    let roles = kind.engine(&[&kubectl[..], &["get", "clusterroles,clusterrolebindings", "--output", "name"]].concat());
    assert_eq!(roles.lines().filter(|line| line.ends_with("/gatelab-links")).count(), 2, "{roles}");
    assert!(kind.gatelab(&["down", "--all"]).status().expect("gatelab starts").success(), "{}", kind.said());
    let embedded = run("embedded");
    let difference = kind.home.gatelab().args(["diff", &embedded, &real]).output().expect("gatelab starts");
    // Shown by `cargo test -- --nocapture`; both sides are proven, so what differs is no signature.
    eprintln!("{}", String::from_utf8_lossy(&difference.stdout));
    assert!(matches!(difference.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&difference.stderr));
    assert!(kind.left().is_empty(), "{:?}", kind.left());
}
