//! A container runtime without processes: each container is a script, time is tokio's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::runtime::{
    ContainerId, ContainerRuntime, ContainerSpec, ExecProcess, ExecSpec, ExitStatus, ImageInfo, RuntimeError, Sandbox, SandboxSpec,
};

/// How containers of one name behave.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// How long each run lasts and its exit code; when used up, it runs until it is stopped.
    pub(super) runs: VecDeque<(Duration, i32)>,
    pub(super) ignores_sigterm: bool,
    /// From SIGTERM to its end.
    pub(super) stops_after: Duration,
}

struct Running {
    name: String,
    exit: watch::Sender<Option<i32>>,
}

#[derive(Default)]
struct State {
    scripts: BTreeMap<String, Script>,
    /// Commands that fail when exec'ed; `sleep N` takes N seconds.
    failing: BTreeSet<String>,
    running: BTreeMap<String, Running>,
    count: u32,
    /// Seconds since the start, and what happened.
    journal: Vec<(u64, String)>,
    specs: Vec<ContainerSpec>,
}

#[derive(Clone)]
pub(super) struct FakeRuntime {
    state: Arc<Mutex<State>>,
    began: Instant,
}

impl FakeRuntime {
    pub(super) fn new() -> Self {
        Self { state: Arc::default(), began: Instant::now() }
    }

    pub(super) fn script(&self, container: &str, script: Script) {
        self.with(|state| state.scripts.insert(container.to_owned(), script));
    }

    pub(super) fn fail(&self, command: &str, fails: bool) {
        self.with(|state| if fails { state.failing.insert(command.to_owned()) } else { state.failing.remove(command) });
    }

    /// What happened, each with the second since the runtime was made; probes left out.
    pub(super) fn journal(&self) -> Vec<String> {
        self.with(|state| {
            state.journal.iter().filter(|(_, what)| !what.starts_with("probe")).map(|(at, what)| format!("{at} {what}")).collect()
        })
    }

    /// When something happened.
    pub(super) fn times(&self, wanted: &str) -> Vec<u64> {
        self.with(|state| state.journal.iter().filter(|(_, what)| what == wanted).map(|(at, _)| *at).collect())
    }

    pub(super) fn specs(&self) -> Vec<ContainerSpec> {
        self.with(|state| state.specs.clone())
    }

    fn note(&self, what: String) {
        let at = self.began.elapsed().as_secs();
        self.with(|state| state.journal.push((at, what)));
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().expect("not poisoned"))
    }

    fn end_later(&self, id: &str, after: Duration, code: i32) {
        let (state, id) = (self.state.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(running) = state.lock().expect("not poisoned").running.get(&id) {
                running.exit.send_if_modified(|exit| exit.is_none() && exit.replace(code).is_none());
            }
        });
    }
}

#[async_trait]
impl ContainerRuntime for FakeRuntime {
    async fn image(&self, image: &str) -> Result<ImageInfo, RuntimeError> {
        if image.contains("missing") {
            return Err(RuntimeError::ImageUnknown { image: image.to_owned(), detail: "not found".to_owned() });
        }
        Ok(ImageInfo { id: format!("sha256:{image}"), entrypoint: vec![], env: BTreeMap::new() })
    }

    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError> {
        let ip = spec.host_network.unwrap_or(Ipv4Addr::new(10, 244, 0, 9));
        Ok(Sandbox { pod_uid: spec.pod_uid, node: spec.node, ip })
    }

    async fn remove_sandbox(&self, _pod_uid: &str) {
        self.note("remove sandbox".to_owned());
    }

    async fn start_container(&self, _pod_uid: &str, spec: ContainerSpec) -> Result<ContainerId, RuntimeError> {
        if spec.command.first().is_some_and(|command| command == "no-such-command") {
            let detail = "executable file not found in $PATH".to_owned();
            return Err(RuntimeError::CannotStart { command: spec.command[0].clone(), detail });
        }
        self.note(format!("start {}", spec.name));
        let (id, run) = self.with(|state| {
            state.count += 1;
            let id = format!("{}-{}", spec.name, state.count);
            let running = Running { name: spec.name.clone(), exit: watch::channel(None).0 };
            state.running.insert(id.clone(), running);
            let run = state.scripts.get_mut(&spec.name).and_then(|script| script.runs.pop_front());
            state.specs.push(spec);
            (id, run)
        });
        if let Some((after, code)) = run {
            self.end_later(&id, after, code);
        }
        Ok(ContainerId(id))
    }

    async fn wait_container(&self, id: &ContainerId) -> Result<ExitStatus, RuntimeError> {
        let started_at = Timestamp::now();
        let mut exit = self
            .with(|state| state.running.get(&id.0).map(|running| running.exit.subscribe()))
            .ok_or_else(|| RuntimeError::NotFound(id.0.clone()))?;
        let exit_code = exit.wait_for(Option::is_some).await.ok().and_then(|code| *code).unwrap_or(-1);
        let name = self.with(|state| state.running[&id.0].name.clone());
        self.note(format!("end {name}"));
        Ok(ExitStatus { exit_code, signal: None, oom_killed: false, started_at, finished_at: Timestamp::now() })
    }

    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let (name, script) = self.with(|state| {
            let name = state.running[&id.0].name.clone();
            let script = state.scripts.get(&name).cloned().unwrap_or_default();
            (name, script)
        });
        if signal == libc::SIGKILL {
            self.note(format!("kill {name}"));
            self.end_later(&id.0, Duration::ZERO, 137);
        } else {
            self.note(format!("term {name}"));
            if !script.ignores_sigterm {
                self.end_later(&id.0, script.stops_after, 143);
            }
        }
        Ok(())
    }

    async fn exec(&self, id: &ContainerId, spec: ExecSpec) -> Result<ExecProcess, RuntimeError> {
        let name = self.with(|state| state.running[&id.0].name.clone());
        let command = spec.command.join(" ");
        let fails = self.with(|state| state.failing.contains(&command));
        self.note(if command.starts_with("check") { format!("probe {name} {command}") } else { format!("exec {name} {command}") });
        let (sender, exit) = oneshot::channel();
        let takes = command.strip_prefix("sleep ").and_then(|seconds| seconds.parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
        let task = tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            let _ = sender.send(i32::from(fails));
        });
        let abort = task.abort_handle();
        Ok(ExecProcess { stdin: None, stdout: None, stderr: None, resize: None, exit, guard: Box::new(abort) })
    }

    async fn attach(&self, id: &ContainerId, _with_input: bool) -> Result<ExecProcess, RuntimeError> {
        Err(RuntimeError::NotFound(id.0.clone()))
    }

    async fn usage(&self, _id: &ContainerId) -> Result<(u64, u64), RuntimeError> {
        Ok((0, 0))
    }

    async fn dial_from_node(&self, _node: &str, _address: SocketAddr) -> std::io::Result<TcpStream> {
        Err(std::io::Error::from_raw_os_error(libc::ECONNREFUSED))
    }

    async fn dial_in_pod(&self, _pod_uid: &str, _port: u16) -> std::io::Result<TcpStream> {
        Err(std::io::Error::from_raw_os_error(libc::ECONNREFUSED))
    }
}
