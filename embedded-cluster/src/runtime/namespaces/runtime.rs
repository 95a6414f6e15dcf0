//! [`ContainerRuntime`] on namespaces.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::attachment::{Attachments, Input, resizing};
use super::container::{Begun, Container, Outputs};
use super::log_file::Stream;
use super::memory::MemoryWatch;
use super::order::{Bind, Order, ProcessOrder, RootOrder};
use super::process::{Handle, Running, start};
use super::reaper::Reaper;
use super::terminal::Terminal;
use super::{capabilities, program, usage};
use crate::network::{DataPlane, Netns};
use crate::runtime::{
    ContainerId, ContainerRuntime, ContainerSpec, ExecProcess, ExecSpec, ExitStatus, Image, ImageInfo, Images, RuntimeError, Sandbox,
    SandboxSpec, TerminalSize,
};

/// How long the kernel may take to end killed containers before the pod's network is taken away under them.
const KILL_WITHIN: Duration = Duration::from_secs(5);

pub struct RuntimeConfig {
    pub images: Images,
    /// This program, as every container sees it at `/gatelab`; also the shim.
    pub executable: PathBuf,
    /// An empty folder; every container's file system is put together over it, each in its own mount namespace.
    pub root_mount: PathBuf,
}

/// Starts containers as processes; needs to be in the process whose children they become.
pub struct NamespaceRuntime {
    config: Arc<RuntimeConfig>,
    network: DataPlane,
    reaper: Reaper,
    sandboxes: Mutex<HashMap<String, PodSandbox>>,
    containers: Mutex<HashMap<ContainerId, Arc<Container>>>,
    memory: MemoryWatch,
    next: AtomicU64,
}

#[derive(Clone)]
struct PodSandbox {
    spec: Arc<SandboxSpec>,
    netns: Netns,
    ip: Ipv4Addr,
}

impl NamespaceRuntime {
    pub fn new(config: RuntimeConfig, network: DataPlane, reaper: Reaper) -> Self {
        Self {
            config: Arc::new(config),
            network,
            reaper,
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            memory: MemoryWatch::default(),
            next: AtomicU64::new(rand::random()),
        }
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<Container>, RuntimeError> {
        lock(&self.containers).get(id).cloned().ok_or_else(|| RuntimeError::NotFound(id.0.clone()))
    }

    fn sandbox(&self, pod_uid: &str) -> Result<PodSandbox, RuntimeError> {
        lock(&self.sandboxes).get(pod_uid).cloned().ok_or_else(|| RuntimeError::NotFound(pod_uid.to_owned()))
    }

    /// Looks like containerd's ids, 64 hexadecimal digits, and is unique in this cluster.
    fn new_id(&self) -> ContainerId {
        let (high, low): (u128, u64) = (rand::random(), rand::random());
        ContainerId(format!("{high:032x}{low:016x}{:016x}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Runs [`start`] where it blocks nobody.
    async fn start(&self, order: Order, theirs: Vec<OwnedFd>) -> Result<Running, RuntimeError> {
        let (config, reaper) = (Arc::clone(&self.config), self.reaper.clone());
        let work = move || {
            let (Order::Start { process, .. } | Order::Join { process }) = &order;
            start(&config.executable, &reaper, &order, theirs).map_err(|failure| failure.into_error(&process.command))
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| system("start a process", error))?
    }
}

#[async_trait]
impl ContainerRuntime for NamespaceRuntime {
    async fn image(&self, image: &str) -> Result<ImageInfo, RuntimeError> {
        self.config.images.info(image)
    }

    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError> {
        let (netns, ip) = match spec.host_network {
            Some(address) => {
                let node = self.network.node(&spec.node);
                (node.ok_or_else(|| system("enter the node's network", format!("there is no node \"{}\"", spec.node)))?, address)
            }
            None => {
                let network = self.network.attach_pod(&spec.node, &spec.pod_uid).await;
                let network = network.map_err(|error| system("attach the pod to the network", error))?;
                set_sysctls(&network.netns, &spec.sysctls).await?;
                (network.netns, network.ip)
            }
        };
        let sandbox = Sandbox { pod_uid: spec.pod_uid.clone(), node: spec.node.clone(), ip };
        let pod = PodSandbox { spec: Arc::new(spec), netns, ip };
        lock(&self.sandboxes).insert(sandbox.pod_uid.clone(), pod);
        Ok(sandbox)
    }

    async fn remove_sandbox(&self, pod_uid: &str) {
        lock(&self.sandboxes).remove(pod_uid);
        let left: Vec<Arc<Container>> = {
            let mut containers = lock(&self.containers);
            containers.extract_if(|_, container| container.pod_uid == pod_uid).map(|(_, container)| container).collect()
        };
        for container in &left {
            container.kill();
        }
        let all_ended = futures::future::join_all(left.iter().map(|container| container.ended()));
        if tokio::time::timeout(KILL_WITHIN, all_ended).await.is_err() {
            tracing::warn!(pod_uid, "containers of a removed pod have not ended yet");
        }
        if let Err(error) = self.network.detach_pod(pod_uid).await {
            tracing::warn!(pod_uid, %error, "a removed pod could not be taken off the network");
        }
    }

    async fn start_container(&self, pod_uid: &str, spec: ContainerSpec) -> Result<ContainerId, RuntimeError> {
        let sandbox = self.sandbox(pod_uid)?;
        let image = self.config.images.find(&spec.image)?;
        let process = process_order(&spec, image, &sandbox.spec)?;
        let root = root_order(&self.config, &spec, image, &sandbox);
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&spec.log_path)
            .map_err(|error| system(&format!("open the log file {}", spec.log_path.display()), error))?;
        let netns = sandbox.netns.fd().try_clone_to_owned().map_err(|error| system("hold the pod's network namespace", error))?;

        let mut theirs = vec![netns];
        if let Some(target) = &spec.pid_namespace_of {
            let target = self.container(target)?;
            theirs.push(target.handle.as_fd().try_clone_to_owned().map_err(|error| system("hold the target container", error))?);
        }
        let mut outputs: Outputs = Vec::new();
        let mut input: Option<Input> = None;
        if !spec.tty {
            theirs.push(if spec.stdin {
                let (reader, writer) = input_pipe()?;
                input = Some(Box::new(writer));
                reader
            } else {
                null_input()?
            });
            for stream in [Stream::Stdout, Stream::Stderr] {
                let (reader, writer) = output_pipe()?;
                theirs.push(writer);
                outputs.push((Box::new(reader), stream));
            }
        }
        let shares_pids = spec.pid_namespace_of.is_some();
        let order = Order::Start { process: process.clone(), hostname: sandbox.spec.hostname.clone(), root, shares_pids };
        let mut running = self.start(order, theirs).await?;
        let mut terminal = None;
        if let Some(master) = running.terminal.take() {
            let used = |error| system("use the container's terminal", error);
            let own = Terminal::new(master).map_err(used)?;
            outputs.push((Box::new(own.duplicate().map_err(used)?), Stream::Stdout));
            if spec.stdin {
                input = Some(Box::new(own.duplicate().map_err(used)?));
            }
            terminal = Some(own);
        }
        let attachments = Attachments::new(input, terminal, spec.stdin, spec.stdin_once);
        let begun = Begun { running, outputs, log, attachments, shares_pids };
        let limit = spec.memory_limit.map(|limit| (limit, &self.memory));
        let container = Container::follow(pod_uid.to_owned(), process, begun, limit);
        // The pod may have been removed meanwhile, and then nobody would end this container any more.
        if self.sandbox(pod_uid).is_err() {
            container.kill();
            return Err(RuntimeError::NotFound(pod_uid.to_owned()));
        }
        let id = self.new_id();
        lock(&self.containers).insert(id.clone(), container);
        Ok(id)
    }

    async fn wait_container(&self, id: &ContainerId) -> Result<ExitStatus, RuntimeError> {
        let container = self.container(id)?;
        container.ended().await.ok_or_else(|| RuntimeError::NotFound(id.0.clone()))
    }

    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        match self.container(id)?.handle.signal(signal) {
            // It has ended by itself: as good as being told.
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(errno) => Err(system(&format!("send signal {signal}"), errno.desc())),
        }
    }

    async fn exec(&self, id: &ContainerId, spec: ExecSpec) -> Result<ExecProcess, RuntimeError> {
        let container = self.container(id)?;
        if container.has_ended() {
            return Err(RuntimeError::NotFound(format!("{} (the container has ended)", id.0)));
        }
        let mut process = ProcessOrder { command: spec.command, terminal: spec.tty, ..container.process.clone() };
        if spec.tty && !process.env.iter().any(|(name, _)| name == "TERM") {
            process.env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        let target = container.handle.as_fd().try_clone_to_owned().map_err(|error| system("hold the container", error))?;
        let mut theirs = vec![target];
        let mut streams = Streams::default();
        if !spec.tty {
            theirs.push(if spec.stdin {
                let (reader, writer) = input_pipe()?;
                streams.stdin = Some(Box::new(writer));
                reader
            } else {
                null_input()?
            });
            for slot in [&mut streams.stdout, &mut streams.stderr] {
                let (reader, writer) = output_pipe()?;
                theirs.push(writer);
                *slot = Some(Box::new(reader));
            }
        }
        let mut running = self.start(Order::Join { process }, theirs).await?;
        if let Some(master) = running.terminal.take() {
            streams.take_terminal(master, spec.stdin).map_err(|error| system("use the terminal", error))?;
        }
        let (sender, exit) = oneshot::channel();
        let ended = running.ended;
        tokio::spawn(async move {
            if let Ok(ended) = ended.await {
                let _ = sender.send(ended.exit_code);
            }
        });
        let Streams { stdin, stdout, stderr, resize } = streams;
        Ok(ExecProcess { stdin, stdout, stderr, resize, exit, guard: Box::new(KillOnDrop(running.handle)) })
    }

    async fn attach(&self, id: &ContainerId, with_input: bool) -> Result<ExecProcess, RuntimeError> {
        self.container(id)?.attachments.attach(with_input).map_err(|error| system("attach to the container", error))
    }

    async fn usage(&self, id: &ContainerId) -> Result<(u64, u64), RuntimeError> {
        let namespace = self.container(id)?.mount_namespace.clone();
        let usage = tokio::task::spawn_blocking(move || usage::of_namespace(&namespace));
        usage.await.map(|usage| (usage.resident, usage.cpu_nanoseconds)).map_err(|error| system("read /proc", error))
    }

    async fn dial_from_node(&self, node: &str, address: SocketAddr) -> io::Result<TcpStream> {
        let netns =
            self.network.node(node).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no node \"{node}\"")))?;
        netns.tcp_connect(address).await
    }

    async fn dial_in_pod(&self, pod_uid: &str, port: u16) -> io::Result<TcpStream> {
        let sandbox = self.sandbox(pod_uid).map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
        sandbox.netns.tcp_connect((Ipv4Addr::LOCALHOST, port).into()).await
    }
}

struct KillOnDrop(Handle);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.signal(libc::SIGKILL);
    }
}

#[derive(Default)]
struct Streams {
    stdin: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
    stdout: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>,
    stderr: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>,
    resize: Option<mpsc::Sender<TerminalSize>>,
}

impl Streams {
    fn take_terminal(&mut self, master: OwnedFd, with_input: bool) -> io::Result<()> {
        let terminal = Terminal::new(master)?;
        self.resize = Some(resizing(&terminal)?);
        if with_input {
            self.stdin = Some(Box::new(terminal.duplicate()?));
        }
        self.stdout = Some(Box::new(terminal));
        Ok(())
    }
}

/// Command, environment and rights as a container runtime puts them together from image and pod.
fn process_order(spec: &ContainerSpec, image: &Image, pod: &SandboxSpec) -> Result<ProcessOrder, RuntimeError> {
    let mut command = if spec.command.is_empty() { image.entrypoint.clone() } else { spec.command.clone() };
    // As Kubernetes documents it: a `command` alone drops the image's arguments as well.
    match (spec.args.is_empty(), spec.command.is_empty()) {
        (false, _) => command.extend(spec.args.iter().cloned()),
        (true, true) => command.extend(image.args.iter().cloned()),
        (true, false) => {}
    }
    let mut env = vec![("PATH".to_owned(), program::DEFAULT_PATH.to_owned()), ("HOSTNAME".to_owned(), pod.hostname.clone())];
    env.push(("HOME".to_owned(), "/root".to_owned()));
    if spec.tty {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    for (name, value) in image.env.iter().chain(spec.env.iter().map(|(n, v)| (n, v))) {
        env.retain(|(known, _)| known != name);
        env.push((name.clone(), value.clone()));
    }
    let capabilities = capabilities::numbers(&spec.added_capabilities)
        .map_err(|name| system("add capabilities", format!("\"{name}\" is no Linux capability")))?;
    let working_dir = spec.working_dir.clone().unwrap_or_else(|| PathBuf::from("/"));
    Ok(ProcessOrder { command, env, working_dir, capabilities, terminal: spec.tty })
}

fn root_order(config: &RuntimeConfig, spec: &ContainerSpec, image: &Image, sandbox: &PodSandbox) -> RootOrder {
    let pod = &sandbox.spec;
    let mut hosts = format!(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{}\n",
        sandbox.ip, pod.hostname
    );
    for (address, names) in &pod.host_aliases {
        hosts.push_str(&format!("{address}\t{}\n", names.join("\t")));
    }
    let files = vec![
        (PathBuf::from("/etc/hosts"), hosts),
        (PathBuf::from("/etc/hostname"), format!("{}\n", pod.hostname)),
        (PathBuf::from("/etc/resolv.conf"), pod.resolv_conf.clone()),
    ];
    let from_image = image.mounts.iter().map(|(source, target)| Bind { source: source.clone(), target: target.clone(), read_only: true });
    let from_pod = spec.mounts.iter().map(|m| Bind { source: m.source.clone(), target: m.target.clone(), read_only: m.read_only });
    RootOrder { at: config.root_mount.clone(), executable: config.executable.clone(), binds: from_image.chain(from_pod).collect(), files }
}

/// /proc/sys shows each process the settings of the network namespace it is in.
async fn set_sysctls(netns: &Netns, sysctls: &[(String, String)]) -> Result<(), RuntimeError> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let sysctls = sysctls.to_vec();
    let set = move || {
        sysctls.iter().try_for_each(|(name, value)| {
            let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
            std::fs::write(&path, value).map_err(|error| system(&format!("set the kernel parameter {name}={value}"), error))
        })
    };
    netns.run(set).await.map_err(|error| system("set kernel parameters", error))?
}

fn null_input() -> Result<OwnedFd, RuntimeError> {
    std::fs::File::open("/dev/null").map(OwnedFd::from).map_err(|error| system("open /dev/null", error))
}

fn output_pipe() -> Result<(pipe::Receiver, OwnedFd), RuntimeError> {
    let made = std::io::pipe().and_then(|(reader, writer)| Ok((pipe::Receiver::from_owned_fd(reader.into())?, writer.into())));
    made.map_err(|error| system("make a pipe", error))
}

fn input_pipe() -> Result<(OwnedFd, pipe::Sender), RuntimeError> {
    let made = std::io::pipe().and_then(|(reader, writer)| Ok((reader.into(), pipe::Sender::from_owned_fd(writer.into())?)));
    made.map_err(|error| system("make a pipe", error))
}

fn system(action: &str, detail: impl ToString) -> RuntimeError {
    RuntimeError::System { action: action.to_owned(), detail: detail.to_string() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
