//! The seam between the kubelet and whatever runs containers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

/// What a pod's shared surroundings (network, hostname, files in /etc) are made from.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    pub pod_uid: String,
    pub namespace: String,
    pub pod_name: String,
    pub hostname: String,
    pub node: String,
    /// Content of /etc/resolv.conf.
    pub resolv_conf: String,
    /// Lines for /etc/hosts besides localhost and the pod's own name (`spec.hostAliases`).
    pub host_aliases: Vec<(Ipv4Addr, Vec<String>)>,
    /// `securityContext.sysctls`: names with dots and their values, set in the pod's own network namespace.
    pub sysctls: Vec<(String, String)>,
    /// `hostNetwork`: the node's network namespace instead of one of its own, with the node's address, which this is.
    pub host_network: Option<Ipv4Addr>,
}

/// A pod's network namespace, up and addressed.
#[derive(Clone, Debug)]
pub struct Sandbox {
    pub pod_uid: String,
    pub node: String,
    pub ip: Ipv4Addr,
}

/// A file or folder of the host side made visible in a container.
#[derive(Clone, Debug)]
pub struct Mount {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

/// One start of one container.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    pub name: String,
    pub image: String,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments when not empty.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: Option<PathBuf>,
    pub mounts: Vec<Mount>,
    /// CRI log file: lines of `<RFC 3339 time with nanoseconds> <stdout|stderr> <F|P> <text>`.
    pub log_path: PathBuf,
    /// How often this container was started before.
    pub attempt: u32,
    pub tty: bool,
    /// Standard input stays open for clients that attach; without, it is empty.
    pub stdin: bool,
    /// The end of the first attached client's input is the end of the container's.
    pub stdin_once: bool,
    /// `targetContainerName` of an ephemeral container: its processes see and can signal those of this one.
    pub pid_namespace_of: Option<ContainerId>,
    /// `securityContext.capabilities.add` without the `CAP_` prefix.
    pub added_capabilities: Vec<String>,
    /// `resources.limits.memory` in bytes.
    pub memory_limit: Option<u64>,
}

/// Names one started container for the life of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub String);

/// How a container ended.
#[derive(Clone, Debug)]
pub struct ExitStatus {
    /// 128 + signal number when a signal ended it.
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
}

/// What an image name stands for on this machine.
#[derive(Clone, Debug)]
pub struct ImageInfo {
    /// `sha256:…`, made from what the name maps to.
    pub id: String,
    pub entrypoint: Vec<String>,
    pub env: BTreeMap<String, String>,
}

/// A further process in a running container.
#[derive(Clone, Debug)]
pub struct ExecSpec {
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
}

/// Width and height in characters.
#[derive(Clone, Copy, Debug)]
pub struct TerminalSize {
    pub columns: u16,
    pub rows: u16,
}

/// A process that runs by `exec`; dropping it kills the process.
pub struct ExecProcess {
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// `None` with a terminal: everything comes by `stdout`.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Window changes of the client; `None` without a terminal.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Exit code, 128 + signal when killed.
    pub exit: oneshot::Receiver<i32>,
    /// Keeps the process alive; killed on drop.
    pub guard: Box<dyn Send>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The lab has no executable for this image name; the kubelet turns it into ErrImagePull.
    #[error("failed to pull image \"{image}\": {detail}")]
    ImageUnknown { image: String, detail: String },
    /// The command is not in the image: the kubelet turns it into RunContainerError / StartError (exit code 128).
    #[error("exec: \"{command}\": {detail}")]
    CannotStart { command: String, detail: String },
    #[error("no such container or sandbox: {0}")]
    NotFound(String),
    #[error("{action}: {detail}")]
    System { action: String, detail: String },
}

/// Runs sandboxes and containers. All methods are safe to call concurrently; none blocks the executor.
#[async_trait]
pub trait ContainerRuntime: Send + Sync + 'static {
    async fn image(&self, image: &str) -> Result<ImageInfo, RuntimeError>;

    /// Makes the pod's network namespace, joins it to its node and gives it an address of the node's pod range.
    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError>;

    /// Kills what still runs in it and takes it off the network. Unknown pods are no error.
    async fn remove_sandbox(&self, pod_uid: &str);

    async fn start_container(&self, pod_uid: &str, spec: ContainerSpec) -> Result<ContainerId, RuntimeError>;

    /// Resolves when the container has ended and its whole output is in the log file.
    async fn wait_container(&self, id: &ContainerId) -> Result<ExitStatus, RuntimeError>;

    /// Sends a signal to the container's first process.
    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError>;

    async fn exec(&self, id: &ContainerId, spec: ExecSpec) -> Result<ExecProcess, RuntimeError>;

    /// Joins the container's own streams, from now on; the first client of a container that was made with `stdin` also
    /// gets what was written before it came. Dropping the guard detaches, the container runs on. `exit` is 0: how the
    /// container ended is told by [`ContainerRuntime::wait_container`].
    async fn attach(&self, id: &ContainerId, with_input: bool) -> Result<ExecProcess, RuntimeError>;

    /// Resident bytes and CPU time (nanoseconds) of everything in the container.
    async fn usage(&self, id: &ContainerId) -> Result<(u64, u64), RuntimeError>;

    /// A TCP connection made from a node's network, as the kubelet makes it for probes; the caller bounds the wait.
    async fn dial_from_node(&self, node: &str, address: SocketAddr) -> std::io::Result<TcpStream>;

    /// A TCP connection made inside the pod's own network namespace to its loopback, for port-forward.
    async fn dial_in_pod(&self, pod_uid: &str, port: u16) -> std::io::Result<TcpStream>;
}
