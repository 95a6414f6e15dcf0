//! The transcript of kubectl on real Kubernetes: what the embedded cluster answers otherwise is what the script says, and no more.
//! Runs when `GATELAB_KIND_TRANSCRIPT` is set; needs kind, an engine, a node image and a kubectl of its version; says so when it skips.

#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking, and shows how the clusters differ")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gatelab_tests::transcript::{BUSYBOX, Entry, Script, Stage, Step, difference, one_node};
use gatelab_tests::{Home, skipped};

/// What a cluster of kind lacks: metrics-server.
const LACKING: [&str; 1] = ["metrics"];
/// In the node image of `kind-config/node-image`.
const KIND_BUSYBOX: &str = "localhost/gatelab/busybox:bookworm";
/// As of the node image; wording and the objects that kubectl makes change from one to the next.
const KUBECTL: &str = "Client Version: v1.34";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("transcript")
}

fn script() -> Script {
    let text = std::fs::read_to_string(folder().join("commands.txt")).expect("the file of commands");
    Script::parse(&text, &LACKING.map(str::to_owned)).expect("a script")
}

/// The table of `docs/parity.md` names every reason, and no other.
#[test]
fn every_difference_is_documented() {
    let text = std::fs::read_to_string(folder().join("commands.txt")).expect("the file of commands");
    let script = Script::parse(&text, &[]).expect("a script");
    let mut commands: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &script.steps {
        if let Some(reason) = &step.differs {
            *commands.entry(reason).or_default() += 1;
        }
    }
    let expected: BTreeSet<String> = commands.iter().map(|(reason, count)| format!("| {reason} | {count} |")).collect();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/parity.md")).expect("docs/parity.md");
    let table = page.split("<!-- transcript -->").nth(1).expect("the marked part of docs/parity.md");
    let told: BTreeSet<String> = table.lines().filter(|line| line.starts_with("| ")).skip(1).map(str::to_owned).collect();
    let wanted: Vec<&String> = expected.iter().collect();
    assert_eq!(told, expected, "the table between the marks is to be:\n{wanted:#?}");
}

struct Kind {
    home: Home,
    kind: PathBuf,
    kubectl: PathBuf,
    engine: String,
    settings: Option<PathBuf>,
}

impl Kind {
    /// `None`, and a word about it, where the machine has not all that it takes.
    fn find() -> Option<Self> {
        let skip = |why: &str| {
            skipped(&format!("kubectl's transcript NOT compared with real Kubernetes: {why}; docs/kind.md says what it takes"));
            None
        };
        if std::env::var_os("GATELAB_KIND_TRANSCRIPT").is_none() {
            return skip("it takes two labs and many minutes, so GATELAB_KIND_TRANSCRIPT=1 asks for it");
        }
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let cache = variable("GATELAB_CACHE")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("gatelab")))
            .or_else(|| Some(variable("HOME")?.join(".cache/gatelab")))
            .unwrap_or_default();
        let on_path = |program: &str| -> Vec<PathBuf> {
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).map(|folder| folder.join(program)).collect()
        };
        let built = cache.join("kind-node-image/bin");
        let first = |candidates: Vec<PathBuf>| candidates.into_iter().find(|path| path.is_file());
        let kinds = variable("GATELAB_KIND").into_iter().chain(on_path("kind")).chain([built.join("kind")]).collect();
        let Some(kind) = first(kinds) else { return skip("there is no kind") };
        let Some(kubectl) = first([vec![built.join("kubectl")], on_path("kubectl")].concat()) else { return skip("there is no kubectl") };
        let version = Command::new(&kubectl).args(["version", "--client"]).output().map(|output| output.stdout).unwrap_or_default();
        if !String::from_utf8_lossy(&version).contains(KUBECTL) {
            return skip("the differences are those that kubectl 1.34 shows, and it is another");
        }
        let wanted = std::env::var("KIND_EXPERIMENTAL_PROVIDER").ok();
        let settings = cache.join("podman/containers.conf");
        for engine in wanted.map_or_else(|| vec!["docker".to_owned(), "podman".to_owned()], |engine| vec![engine]) {
            let ours = engine == "podman" && std::env::var_os("CONTAINERS_CONF").is_none() && settings.is_file();
            let this =
                Kind { home: Home::new(), kind: kind.clone(), kubectl: kubectl.clone(), engine, settings: ours.then(|| settings.clone()) };
            if this.engine(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).contains("gatelab/kind-node:v1.34") {
                for name in ["nginx", "podman", "kind-node-image"] {
                    let _ = std::os::unix::fs::symlink(cache.join(name), this.home.path().join(name));
                }
                return Some(this);
            }
        }
        skip("no engine that answers has the node image of Kubernetes 1.34")
    }

    fn engine(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.engine);
        if let Some(settings) = &self.settings {
            command.env("CONTAINERS_CONF", settings);
        }
        let output = command.args(arguments).stderr(Stdio::null()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    fn gatelab(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.gatelab();
        command.args(arguments).env("GATELAB_CACHE", self.home.path()).env("GATELAB_KIND", &self.kind);
        command.env("KIND_EXPERIMENTAL_PROVIDER", &self.engine);
        command
    }

    /// A lab of one node; its kubeconfig.
    fn up(&self, name: &str, provider: &str) -> PathBuf {
        let scenarios = one_node(&self.home.path().join(name)).expect("a folder").display().to_string();
        let up = self.gatelab(&["up", "--scenarios", &scenarios, "--cluster", provider, "--name", name]).output();
        let up = up.expect("gatelab starts");
        assert!(up.status.success(), "{provider}: {}", String::from_utf8_lossy(&up.stderr));
        PathBuf::from(String::from_utf8_lossy(&up.stdout).trim())
    }

    fn transcript(&self, kubeconfig: &Path, busybox: &str) -> Vec<Entry> {
        let stage = Stage { kubeconfig, kubectl: Some(&self.kubectl), folder: &folder(), busybox };
        stage.run(&script()).expect("every step that prepares succeeds")
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        let _ = self.gatelab(&["down", "--all"]).output();
    }
}

#[test]
fn kubectl_says_the_same_on_real_kubernetes() {
    let Some(kind) = Kind::find() else { return };
    let embedded = kind.transcript(&kind.up("embedded", "embedded"), BUSYBOX);
    let real = kind.transcript(&kind.up("real", "kind"), KIND_BUSYBOX);
    let script = script();
    let commands = |which: fn(&Step) -> bool| -> BTreeSet<&str> {
        script.steps.iter().filter(|step| which(step)).map(|step| step.command.as_str()).collect()
    };
    let (documented, certain) = (commands(|step| step.differs.is_some()), commands(|step| step.differs.is_some() && !step.later));
    let differing: BTreeSet<&str> =
        embedded.iter().zip(&real).filter(|(one, other)| one != other).map(|(one, _)| one.command.as_str()).collect();
    eprintln!("{} of {} commands are answered alike", embedded.len() - differing.len(), embedded.len());
    let news: Vec<&&str> = differing.difference(&documented).collect();
    let gone: Vec<&&str> = certain.difference(&differing).collect();
    let shown = difference(&embedded, &real);
    assert!(news.is_empty() && gone.is_empty(), "not documented: {news:#?}\nno longer differing: {gone:#?}\n{shown}");
}
