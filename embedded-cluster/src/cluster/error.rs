//! Why a cluster could not be started, found or stopped.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What keeps an ordinary user's process from making namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Barrier {
    #[error(
        "AppArmor gives no capabilities in user namespaces of unconfined programs \
         (/proc/sys/kernel/apparmor_restrict_unprivileged_userns is 1); allow it until the next boot with \
         `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run as root"
    )]
    AppArmor,
    #[error(
        "this kernel is set to refuse them (/proc/sys/kernel/unprivileged_userns_clone is 0); allow it until the next \
         boot with `sudo sysctl kernel.unprivileged_userns_clone=1`, or run as root"
    )]
    CloneSysctl,
    #[error(
        "the limit of user namespaces is reached or is 0 (/proc/sys/user/max_user_namespaces is {limit}); raise it \
         until the next boot with `sudo sysctl user.max_user_namespaces=15000`"
    )]
    Limit { limit: String },
    #[error(
        "the surroundings refuse it ({detail}): most likely a container whose seccomp profile forbids unshare and \
         mount; start that container with `--security-opt seccomp=unconfined`, or run on the machine itself"
    )]
    Confined { detail: String },
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("user namespaces, which the embedded cluster is made of, cannot be used: {0}")]
    NamespacesForbidden(Barrier),
    #[error("a lab named \"{name}\" runs already (pid {pid}): stop it first, or choose another name")]
    AlreadyRunning { name: String, pid: i32 },
    #[error("no lab runs in {}", .state_dir.display())]
    NotRunning { state_dir: PathBuf },
    #[error("\"{name}\" cannot name a lab: use at most 63 of lower-case letters, digits and '-', first and last a letter or digit")]
    InvalidName { name: String },
    #[error("a lab needs at least one node and at most 200, not {nodes}")]
    InvalidNodes { nodes: u8 },
    #[error("{action} {}: {source}", .path.display())]
    StateDir { action: &'static str, path: PathBuf, source: io::Error },
    #[error("starting the cluster's first process ({}): {source}", .executable.display())]
    Launch { executable: PathBuf, source: io::Error },
    /// `processes`: what its threads waited in, a line each.
    #[error("the cluster was not ready within {waited:?}; the end of its log:\n{log}\nits processes:\n{processes}")]
    NotReady { waited: Duration, log: String, processes: String },
    #[error("the cluster could not be brought up: {detail}; the end of its log:\n{log}")]
    BringUp { detail: String, log: String },
    #[error("stopping the lab with pid {pid}: {detail}")]
    Stop { pid: i32, detail: String },
}
