//! What the runtime and its shim say to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a shim process is to do; it does one thing and ends.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Descriptors: the pod's network namespace; with `shares_pids` a pidfd of the process whose pid namespace is joined;
    /// then stdin, stdout and stderr unless a terminal is asked for.
    Start { process: ProcessOrder, hostname: String, root: RootOrder, shares_pids: bool },
    /// Descriptors: a pidfd of the container's first process, then stdin, stdout and stderr likewise.
    Join { process: ProcessOrder },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ProcessOrder {
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: PathBuf,
    /// Numbers of <linux/capability.h>.
    pub capabilities: Vec<u8>,
    /// Make a pseudo-terminal in the container and send back its master side.
    pub terminal: bool,
}

/// The container's file system.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RootOrder {
    /// An empty folder to put it together on; private to the container's mount namespace.
    pub at: PathBuf,
    pub executable: PathBuf,
    pub binds: Vec<Bind>,
    /// Absolute path in the container -> content.
    pub files: Vec<(PathBuf, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bind {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The process exists; comes with a pidfd of it. The shim waits for an answer before it ends, so that the runtime
    /// can register the pid before it may become its child and be reaped.
    Born {
        pid: i32,
        /// What /proc/PID/ns/mnt of every process in the container reads.
        mount_namespace: String,
    },
    /// Comes with the master side of the terminal.
    Terminal,
    Failed(Failure),
}

/// The shim's sockets close when the command is executed: silence after `Born` means success.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    /// The container has no such command, or it cannot be executed.
    Command {
        detail: String,
    },
    System {
        action: String,
        detail: String,
    },
}

impl Failure {
    pub fn system(action: impl Into<String>, detail: impl ToString) -> Self {
        Self::System { action: action.into(), detail: detail.to_string() }
    }
}
