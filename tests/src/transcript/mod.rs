//! A file of shell commands around kubectl, run against any cluster, and what they printed with everything volatile
//! taken out, so that it can be held in a snapshot or compared with another cluster's.

mod difference;
pub mod held;
mod kubectls;
mod normalise;
mod script;

use std::path::Path;
use std::process::{Command, Output};

pub use difference::difference;
pub use kubectls::{Kubectl, kubectls};
pub use normalise::Normaliser;
pub use script::{Script, Step, StepKind};

/// What the embedded cluster calls it; it has no image, but this machine's tools.
pub const BUSYBOX: &str = "busybox:1.36";

/// A folder of scenarios with one in it, `wrong-target-port` on one node: what the transcript tells is then the same on the
/// embedded cluster, which has two nodes otherwise, and on the smallest real one.
///
/// # Errors
/// When the catalogue cannot be read, or the folder not written.
pub fn one_node(into: &Path) -> std::io::Result<std::path::PathBuf> {
    let catalogue = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").canonicalize()?;
    let folder = into.join("one-node");
    std::fs::create_dir_all(folder.join("wrong-target-port"))?;
    std::os::unix::fs::symlink(catalogue.join("_apps"), folder.join("_apps"))?;
    let scenario = std::fs::read_to_string(catalogue.join("wrong-target-port/scenario.yaml"))?;
    let scenario = scenario.replacen("\napp: shop\n", "\napp: shop\ncluster: { nodes: 1 }\n", 1);
    std::fs::write(folder.join("wrong-target-port/scenario.yaml"), scenario)?;
    Ok(folder)
}

/// One step and what came of it, normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub command: String,
    pub output: String,
}

/// Where commands run.
pub struct Stage<'a> {
    /// Of the cluster.
    pub kubeconfig: &'a Path,
    /// The kubectl to use instead of the one on PATH, by an absolute path.
    pub kubectl: Option<&'a Path>,
    /// Folder that the commands start in: manifests lie there.
    pub folder: &'a Path,
    /// An image with a shell and busybox' tools, for `$BUSYBOX`.
    pub busybox: &'a str,
}

impl Stage<'_> {
    /// Runs every step in order; steps that prepare give no entry.
    ///
    /// # Errors
    /// The first step that prepares and fails, with what it printed.
    pub fn run(&self, script: &Script) -> Result<Vec<Entry>, String> {
        let scratch =
            tempfile::Builder::new().prefix("transcript-").tempdir().map_err(|error| format!("a folder to keep notes in: {error}"))?;
        if let Some(kubectl) = self.kubectl {
            // Its file may be called `kubectl.1.33`.
            let linked = std::fs::create_dir(scratch.path().join("bin"))
                .and_then(|()| std::os::unix::fs::symlink(kubectl, scratch.path().join("bin/kubectl")));
            linked.map_err(|error| format!("a link to {}: {error}", kubectl.display()))?;
        }
        let shell = |command: &str| self.shell(command, scratch.path());
        let nodes = shell("kubectl get nodes -o name").map_err(|error| error.to_string())?;
        let nodes: Vec<String> =
            String::from_utf8_lossy(&nodes.stdout).lines().filter_map(|line| line.strip_prefix("node/")).map(ToOwned::to_owned).collect();
        let normaliser = Normaliser::new(nodes);
        let mut entries = Vec::new();
        for step in &script.steps {
            let output = shell(&step.command).map_err(|error| format!("{}: {error}", step.command))?;
            match step.kind {
                StepKind::Prepare if !output.status.success() => {
                    let said = [output.stdout, output.stderr].concat();
                    return Err(format!("{} failed:\n{}", step.command, String::from_utf8_lossy(&said)));
                }
                StepKind::Prepare => {}
                StepKind::Held => entries.push(Entry { command: step.command.clone(), output: printed(&output, &normaliser) }),
            }
        }
        Ok(entries)
    }

    /// `$SCRATCH` is a folder for what one step leaves to another.
    fn shell(&self, command: &str, scratch: &Path) -> std::io::Result<Output> {
        let mut shell = Command::new("timeout");
        shell
            .args(["300", "sh", "-c", command])
            .current_dir(self.folder)
            .env("KUBECONFIG", self.kubeconfig)
            .env("TZ", "UTC")
            .env("SCRATCH", scratch)
            .env("BUSYBOX", self.busybox);
        // Terminals and personal settings change what kubectl prints.
        shell.env_remove("KUBECTL_EXTERNAL_DIFF").env_remove("KUBERC").env("NO_COLOR", "1").stdin(std::process::Stdio::null());
        if self.kubectl.is_some() {
            let path = std::env::var("PATH").unwrap_or_default();
            shell.env("PATH", format!("{}:{path}", scratch.join("bin").display()));
        }
        shell.output()
    }
}

/// Standard output as it is, standard error marked by `!`, the exit code unless it is 0.
fn printed(output: &Output, normaliser: &Normaliser) -> String {
    let mut text = normaliser.text(&String::from_utf8_lossy(&output.stdout));
    for line in normaliser.text(&String::from_utf8_lossy(&output.stderr)).lines() {
        text.push_str(&format!("! {line}\n"));
    }
    match output.status.code() {
        Some(0) => {}
        Some(code) => text.push_str(&format!("exit {code}\n")),
        None => text.push_str("killed\n"),
    }
    text
}

/// As a snapshot holds it.
pub fn render(entries: &[Entry]) -> String {
    entries.iter().map(|entry| format!("$ {}\n{}\n", entry.command, entry.output)).collect()
}
