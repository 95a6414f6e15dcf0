//! What can go wrong with kind, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use crate::kubernetes::KubernetesError;
use crate::provider::images::ImageError;
use crate::provider::interface::ProviderError;
use crate::provider::named_image::NamedImageError;

#[derive(Debug, thiserror::Error)]
pub enum KindError {
    #[error("the program `kind` was not found: looked at {searched}")]
    NoKind { searched: String },
    #[error("neither docker nor podman was found on PATH")]
    NoEngine,
    #[error("{engine} does not answer: {detail}")]
    EngineDown { engine: String, detail: String },
    #[error("the node image {image} is not here and cannot be pulled: {detail}")]
    NodeImage { image: String, detail: String },
    #[error("a port that the cluster needs is in use: {detail}")]
    PortTaken { detail: String },
    #[error("the nodes do not take the images: {detail}")]
    Load { detail: String },
    #[error("Kubernetes does not start in the node: {detail}")]
    NodeStart { detail: String },
    #[error("{engine} may not be used by this user: {detail}")]
    NotPermitted { engine: String, detail: String },
    #[error("the disk is full: {detail}")]
    DiskFull { detail: String },
    #[error("{what} was not over after {waited:?}")]
    TooLong { what: String, waited: Duration },
    #[error("{what} failed ({status}): {detail}")]
    Failed { what: String, status: String, detail: String },
    #[error("{what}: {}: {source}", .path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("no lab cluster named `{name}` runs; these do: {running}")]
    NoSuchCluster { name: String, running: String },
    #[error("a cluster named `{name}` is there already, perhaps half made")]
    ClusterExists { name: String },
    #[error("the cluster `{name}` is being made by another gatelab")]
    BeingMade { name: String },
    #[error("{component} does not run in the new cluster: {detail}")]
    Component { component: String, detail: String },
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    NamedImage(#[from] NamedImageError),
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    #[error("there is no cluster to run in: it has not been prepared")]
    NotPrepared,
}

/// What the engines say to users who may not use them.
const NOT_PERMITTED: &[&str] =
    &["permission denied while trying to connect", "dial unix /var/run/docker.sock: connect: permission denied", "rootless provider"];

impl KindError {
    /// Makes sense of what kind said when it failed. kind shows the last lines of the engine's own complaint.
    pub fn of_create(engine: &str, image: &str, status: &str, said: &str) -> Self {
        let line = |patterns: &[&str]| {
            let lower = |line: &str| line.to_lowercase();
            said.lines().rev().find(|line| patterns.iter().any(|pattern| lower(line).contains(pattern))).map(|line| line.trim().to_owned())
        };
        if let Some(detail) = line(&["no space left on device"]) {
            return KindError::DiskFull { detail };
        }
        if let Some(detail) = line(&["port is already allocated", "address already in use"]) {
            return KindError::PortTaken { detail };
        }
        if let Some(detail) = line(&["failed to pull image", "manifest unknown", "no such image", "unable to find image"]) {
            return KindError::NodeImage { image: image.to_owned(), detail };
        }
        if let Some(detail) = line(NOT_PERMITTED) {
            return KindError::NotPermitted { engine: engine.to_owned(), detail };
        }
        if let Some(detail) = line(&["cannot connect to the docker daemon", "cannot connect to podman"]) {
            return KindError::EngineDown { engine: engine.to_owned(), detail };
        }
        if line(&["failed to init node with kubeadm", "failed to join node with kubeadm", "could not find a log line that matches"])
            .is_some()
        {
            return KindError::NodeStart { detail: tail(said) };
        }
        KindError::Failed { what: "creating the cluster".into(), status: status.to_owned(), detail: tail(said) }
    }

    /// Makes sense of what kind said when it could not load images.
    pub fn of_load(status: &str, said: &str) -> Self {
        match KindError::of_create("", "", status, said) {
            full @ KindError::DiskFull { .. } => full,
            _ => KindError::Load { detail: tail(said) },
        }
    }

    /// An engine that failed when it was asked for its version.
    pub fn of_silence(engine: &str, detail: String) -> Self {
        let lower = detail.to_lowercase();
        match NOT_PERMITTED.iter().any(|pattern| lower.contains(pattern)) {
            true => KindError::NotPermitted { engine: engine.to_owned(), detail },
            false => KindError::EngineDown { engine: engine.to_owned(), detail },
        }
    }

    /// What to do, for people.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            KindError::NoKind { .. } => {
                "install kind and put it on PATH, name it in GATELAB_KIND, or let kind-config/node-image/build.sh build it into the cache; \
                 `--cluster embedded` needs neither kind nor containers"
            }
            KindError::NoEngine => {
                "install Docker or Podman; without a running Docker, kind-config/podman/environment.sh sets Podman up for kind"
            }
            KindError::EngineDown { engine, .. } if engine == "docker" => {
                "start it (`systemctl start docker`), and be in the group `docker` or root; to use Podman set KIND_EXPERIMENTAL_PROVIDER=podman"
            }
            KindError::EngineDown { .. } => "`eval \"$(kind-config/podman/environment.sh)\"` as root sets Podman up for kind",
            KindError::NotPermitted { engine, .. } if engine == "docker" => {
                "`sudo usermod -aG docker $USER` and a new login let this user use it, or run as root"
            }
            KindError::NotPermitted { .. } => {
                "run as root: kind with Podman as an ordinary user needs cgroup v2 with delegation (kind's documentation, \"Rootless\")"
            }
            KindError::Load { .. } => {
                "`gatelab down --all` and a new cluster help against a node that is in disorder; a node image other than kind's own must \
                 have containerd's `ctr`"
            }
            KindError::NodeStart { .. } => {
                "most often the machine is too busy or short of memory (a node takes 1 GB), or the node image does not fit this kernel \
                 (cgroup v1 needs Kubernetes before 1.35); `kind export logs` of a cluster made by hand with kind-config/one-node.yaml says more"
            }
            KindError::NodeImage { .. } => {
                "where no registry can be reached, kind-config/node-image/build.sh builds a node image; GATELAB_NODE_IMAGE names another one"
            }
            KindError::PortTaken { .. } => {
                "all ports are asked for as \"any free one\": `gatelab down --all` takes earlier labs away, then try again"
            }
            KindError::DiskFull { .. } => {
                "make room where the engine keeps its containers, or take earlier labs away: `gatelab down --all`"
            }
            KindError::Component { detail, .. } if detail.contains("too many open files") => {
                "this user's inotify instances are used up: `sysctl fs.inotify.max_user_instances=1024` as root allows more; clusters and \
                 labs that are not needed any more can go (`gatelab down --all`)"
            }
            KindError::Component { .. } => "`gatelab down --all` and another try help when the machine was too busy",
            KindError::NamedImage(error) => return error.hint(),
            KindError::TooLong { .. } => {
                "a busy machine may need longer: set GATELAB_KIND_WITHIN to more seconds; fewer nodes start sooner"
            }
            KindError::NoSuchCluster { .. } => "`--retain` keeps the cluster of a run; `kind get clusters` lists all",
            KindError::ClusterExists { .. } => {
                "`gatelab down NAME` takes it away, `gatelab down --all` takes all; or choose another --name"
            }
            KindError::BeingMade { .. } => "wait for it, or choose another --name",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// The last lines of what a program said: the reason is there.
pub fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

impl From<KindError> for ProviderError {
    fn from(error: KindError) -> Self {
        ProviderError {
            provider: "kind".into(),
            detail: error.to_string(),
            // Emptying the cluster for the next run may fail once; all else will fail again.
            hopeless: !matches!(error, KindError::Kubernetes(_) | KindError::TooLong { .. }),
            hints: error.hint().into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(said: &str) -> &'static str {
        let error = KindError::of_create("docker", "kindest/node:v1", "exit status: 1", said);
        let hinted = error.hint().is_some();
        let name = match error {
            KindError::DiskFull { .. } => "disk",
            KindError::PortTaken { .. } => "port",
            KindError::NodeImage { .. } => "image",
            KindError::EngineDown { .. } => "engine",
            KindError::NotPermitted { .. } => "permission",
            KindError::NodeStart { .. } => "start",
            KindError::Failed { .. } => return "other",
            other => panic!("{other}"),
        };
        assert!(hinted, "{name} comes with what to do");
        name
    }

    #[test]
    fn what_kind_and_the_engines_say_is_understood() {
        assert_eq!(
            kind_of(
                "ERROR: failed to create cluster: failed to pull image \"kindest/node:v1.35.0\": command \"docker pull kindest/node:v1.35.0\" failed with error: exit status 1\nCommand Output: Error response from daemon"
            ),
            "image"
        );
        assert_eq!(kind_of("docker: Error response from daemon: Bind for 127.0.0.1:30080 failed: port is already allocated."), "port");
        assert_eq!(kind_of("Error: rootlessport listen tcp 127.0.0.1:30080: bind: address already in use"), "port");
        assert_eq!(kind_of("tar: write error: No space left on device"), "disk");
        assert_eq!(
            kind_of("ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"),
            "engine"
        );
        assert_eq!(kind_of("ERROR: failed to create cluster: failed to init node with kubeadm"), "start");
        assert_eq!(kind_of("ERROR: running kind with rootless provider requires setting systemd property \"Delegate=yes\""), "permission");
        assert_eq!(
            kind_of("permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"),
            "permission"
        );
        assert_eq!(kind_of("ERROR: failed to create cluster: something new"), "other");
        assert!(matches!(KindError::of_load("1", "ctr: failed to ingest: no space left on device"), KindError::DiskFull { .. }));
        assert!(matches!(KindError::of_load("1", "ERROR: command \"ctr\" failed"), KindError::Load { .. }));
    }

    #[test]
    fn of_long_output_the_end_is_told() {
        let said: String = (0..100).map(|number| format!("line {number}\n\n")).collect();
        assert_eq!(tail(&said), "line 95 | line 96 | line 97 | line 98 | line 99");
    }
}
