//! The life of one pod on its node: one task that owns all of the pod's state and is told of everything by messages.
//!
//! Whatever takes time (starting a container and its `postStart`, probing, killing) runs in tasks of its own that only
//! send messages back, so that the worker always answers at once, and a deletion interrupts anything. Containers are
//! started strictly one after another, `postStart` included, as the kubelet's `SyncPod` does; that order is what mesh
//! sidecars rely on to hold the application back.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::container::{Container, Ended, Role, State, Task};
use super::killing::{self, Kill};
use super::node::Kubelet;
use super::probe_actions::Target;
use super::prober::{self, Kind};
use super::starting::{self, StartError, Started};
use super::status::{self, Stopped, View};
use super::volumes::Volumes;
use crate::controllers::events::reference;
use crate::controllers::objects::Key;
use crate::controllers::pods::key;
use crate::runtime::{ContainerId, ExitStatus, Sandbox};
use crate::store::DeleteOptions;

/// How long a pod waits before it tries again what has no back-off of its own (mounting, configuration).
const RETRY: Duration = Duration::from_secs(2);
/// ErrImagePull is shown this long before it becomes ImagePullBackOff.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);

/// What a worker is told. Indices are those of its containers, attempts make late messages recognizable.
pub(super) enum Message {
    /// A new version of the pod, or that it is gone from the API.
    Pod(Option<Arc<Pod>>),
    /// A ConfigMap or Secret of the namespace changed.
    SourcesChanged,
    Sandbox(Result<Sandbox, String>),
    Started(usize, u32, Result<Started, StartError>),
    PostStart(usize, u32, Result<(), String>),
    Exited(usize, u32, ExitStatus),
    Probed(usize, u32, Kind, bool),
    /// A worker on another thread wants to know what is there (logs, exec).
    Look(tokio::sync::oneshot::Sender<Vec<Seen>>),
}

/// What others may know of a container.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) id: Option<ContainerId>,
    /// The run whose log is the current one.
    pub(super) attempt: u32,
    /// The run that `kubectl logs --previous` means: the last one that ended.
    pub(super) previous: Option<u32>,
    pub(super) ever_started: bool,
    pub(super) waiting: Option<String>,
}

/// A pod's folder, by uid.
pub(super) fn pod_folder(kubelet: &Kubelet, pod: &Pod) -> PathBuf {
    let (namespace, name) = key(pod);
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    kubelet.settings.state_dir.join("pods").join(format!("{namespace}_{name}_{uid}"))
}

/// `<pod folder>/logs/<container>/<attempt>.log`.
pub(super) fn log_path(kubelet: &Kubelet, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    pod_folder(kubelet, pod).join("logs").join(container).join(format!("{attempt}.log"))
}

struct Termination {
    began: Instant,
    deadline: watch::Sender<Instant>,
    alive: watch::Sender<BTreeSet<usize>>,
}

pub(super) struct Worker {
    kubelet: Arc<Kubelet>,
    pod: Arc<Pod>,
    about: ObjectReference,
    containers: Vec<Container>,
    volumes: Volumes,
    sandbox: Option<Sandbox>,
    sandbox_pending: bool,
    /// The address stays in the status when the sandbox is gone.
    pod_ip: Option<Ipv4Addr>,
    start_time: Timestamp,
    /// Nothing that has no back-off of its own is tried before.
    not_before: Option<Instant>,
    /// A message that would otherwise be repeated at every try.
    last_complaint: Option<String>,
    termination: Option<Termination>,
    stopped: Option<Stopped>,
    gone_from_api: bool,
    outbox: mpsc::UnboundedSender<Message>,
    inbox: mpsc::UnboundedReceiver<Message>,
}

impl Worker {
    pub(super) fn new(kubelet: Arc<Kubelet>, pod: Arc<Pod>) -> (Self, mpsc::UnboundedSender<Message>) {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let worker = Self {
            about: reference(&*pod),
            containers: Container::all_of(&pod, kubelet.settings.back_off),
            volumes: Volumes::new(&pod_folder(&kubelet, &pod)),
            sandbox: None,
            sandbox_pending: false,
            pod_ip: None,
            start_time: Timestamp::now(),
            not_before: None,
            last_complaint: None,
            termination: None,
            stopped: None,
            gone_from_api: false,
            outbox: outbox.clone(),
            inbox,
            kubelet,
            pod,
        };
        (worker, outbox)
    }

    /// Runs until the pod is gone, in the API and on the node.
    pub(super) async fn run(mut self) {
        if self.is_terminal_already() {
            self.wait_for_deletion().await;
            return;
        }
        self.pod_changed();
        loop {
            let finished = self.advance();
            self.publish();
            if finished {
                break;
            }
            let timer = self.next_timer();
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.handle(message),
                    None => break,
                },
                () = sleep_until(timer) => {}
            }
            // Everything that has already happened belongs into the same picture.
            while let Ok(message) = self.inbox.try_recv() {
                self.handle(message);
            }
        }
        self.tear_down().await;
        self.wait_for_deletion().await;
    }

    /// A pod that ended before this kubelet saw it is not run again.
    fn is_terminal_already(&self) -> bool {
        crate::controllers::pods::is_finished(&self.pod)
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Pod(Some(pod)) => {
                self.pod = pod;
                self.pod_changed();
            }
            Message::Pod(None) => {
                self.gone_from_api = true;
                self.terminate(Duration::ZERO);
            }
            Message::SourcesChanged => self.sources_changed(),
            Message::Sandbox(result) => self.sandbox_made(result),
            Message::Started(index, attempt, result) if self.is_current(index, attempt) => self.started(index, result),
            Message::PostStart(index, attempt, result) if self.is_current(index, attempt) => self.post_start_done(index, result),
            Message::Exited(index, attempt, exit) if self.is_current(index, attempt) => self.exited(index, &exit),
            Message::Probed(index, attempt, kind, verdict) if self.is_current(index, attempt) => self.probed(index, kind, verdict),
            Message::Look(answer) => {
                let _ = answer.send(self.containers.iter().map(seen).collect());
            }
            Message::Started(..) | Message::PostStart(..) | Message::Exited(..) | Message::Probed(..) => {}
        }
    }

    fn is_current(&self, index: usize, attempt: u32) -> bool {
        self.containers.get(index).is_some_and(|c| c.attempt == attempt)
    }

    fn policy(&self) -> String {
        self.pod.spec.as_ref().and_then(|s| s.restart_policy.clone()).unwrap_or_else(|| "Always".to_owned())
    }

    fn pod_changed(&mut self) {
        self.add_ephemeral();
        self.replace_images();
        if let Some(deleted) = &self.pod.metadata.deletion_timestamp {
            let _ = deleted;
            let seconds = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            self.terminate(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        }
    }

    fn add_ephemeral(&mut self) {
        for ephemeral in self.pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten()) {
            if self.containers.iter().any(|c| c.name() == ephemeral.name) {
                continue;
            }
            // Both are the same container but for what ephemeral ones may not have.
            let template = serde_json::to_value(ephemeral).and_then(serde_json::from_value);
            if let Ok(template) = template {
                self.containers.push(Container::new(template, Role::Ephemeral, self.kubelet.settings.back_off));
            }
        }
    }

    /// The image is the one thing of a running container that may be changed.
    fn replace_images(&mut self) {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let templates = spec.init_containers.into_iter().flatten().chain(spec.containers);
        for template in templates {
            let Some(index) = self.containers.iter().position(|c| c.name() == template.name) else { continue };
            if self.containers[index].template.image == template.image {
                continue;
            }
            self.containers[index].template.image = template.image;
            self.containers[index].not_before = None;
            if self.containers[index].is_running() {
                let message = format!("Container {} definition changed, will be restarted", self.containers[index].name());
                self.kubelet.recorder.normal(&self.about_container(index), "Killing", message);
                self.kill(index, None);
            }
        }
    }

    fn sources_changed(&mut self) {
        self.not_before = None;
        for container in &mut self.containers {
            if matches!(&container.state, State::Waiting { reason, .. } if *reason == "CreateContainerConfigError") {
                container.not_before = None;
            }
        }
        if self.sandbox.is_some()
            && let Err(error) = self.set_up_volumes()
        {
            tracing::debug!(error, pod = self.about.name, "volume not refreshed: the old content stays");
        }
    }

    fn set_up_volumes(&mut self) -> Result<(), String> {
        let ip = self.pod_ip.map(|ip| ip.to_string()).unwrap_or_default();
        self.volumes.set_up(&self.kubelet, &self.pod, &ip).map_err(|e| e.to_string())
    }

    // ---- what to do next -------------------------------------------------------------------------------------------

    /// Takes every step that can be taken now; true when nothing is left to do for this pod.
    fn advance(&mut self) -> bool {
        if self.termination.is_some() {
            return self.advance_termination();
        }
        if self.sandbox.is_none() {
            self.make_sandbox();
            return false;
        }
        if self.containers.iter().any(|c| matches!(c.state, State::Starting { .. })) {
            return false;
        }
        if self.app_is_done() {
            return self.stop_sidecars();
        }
        if let Some(index) = self.next_to_start() {
            self.start(index);
        }
        false
    }

    fn make_sandbox(&mut self) {
        if self.sandbox_pending || self.not_before.is_some_and(|at| at > Instant::now()) {
            return;
        }
        if let Err(error) = self.set_up_volumes() {
            if self.last_complaint.as_ref() != Some(&error) {
                self.kubelet.recorder.warning(&self.about, "FailedMount", error.clone());
                self.last_complaint = Some(error);
            }
            self.not_before = Some(Instant::now() + RETRY);
            return;
        }
        self.sandbox_pending = true;
        let (kubelet, pod, outbox) = (self.kubelet.clone(), self.pod.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let made = kubelet.runtime.create_sandbox(starting::sandbox_spec(&kubelet, &pod)).await;
            let _ = outbox.send(Message::Sandbox(made.map_err(|e| e.to_string())));
        });
    }

    fn sandbox_made(&mut self, result: Result<Sandbox, String>) {
        self.sandbox_pending = false;
        match result {
            Ok(sandbox) => {
                self.pod_ip = Some(sandbox.ip);
                self.sandbox = Some(sandbox);
                self.last_complaint = None;
                // The downward API may name the address.
                if let Err(error) = self.set_up_volumes() {
                    self.kubelet.recorder.warning(&self.about, "FailedMount", error);
                }
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                if self.last_complaint.as_ref() != Some(&message) {
                    self.kubelet.recorder.warning(&self.about, "FailedCreatePodSandBox", message.clone());
                    self.last_complaint = Some(message);
                }
                self.not_before = Some(Instant::now() + RETRY);
            }
        }
    }

    /// The first container that is due: init containers one by one, then the application's.
    fn next_to_start(&self) -> Option<usize> {
        let now = Instant::now();
        let due = |c: &Container| {
            !c.done && !c.stopping && !c.is_alive() && c.not_before.is_none_or(|at| at <= now) && !matches!(c.state, State::Ended(_))
        };
        let mut initialized = true;
        for (index, container) in self.containers.iter().enumerate() {
            match container.role {
                Role::Init | Role::Sidecar => {
                    // An init container that is over is not looked at again once the application runs.
                    let over = container.role == Role::Init && self.application_began();
                    if !over && due(container) {
                        return Some(index);
                    }
                    if !status::is_initialized(container) {
                        initialized = false;
                        break;
                    }
                }
                Role::App if due(container) => return Some(index),
                Role::App | Role::Ephemeral => {}
            }
        }
        let ephemeral = |(_, c): &(usize, &Container)| c.role == Role::Ephemeral && due(c);
        let _ = initialized;
        self.containers.iter().enumerate().find(ephemeral).map(|(index, _)| index)
    }

    fn application_began(&self) -> bool {
        self.containers.iter().any(|c| c.role == Role::App && c.attempt > 0)
    }

    fn app_is_done(&self) -> bool {
        let apps_done = self.containers.iter().filter(|c| c.role == Role::App).all(|c| c.done);
        let init_failed = self
            .containers
            .iter()
            .any(|c| c.role == Role::Init && c.done && matches!(&c.state, State::Ended(ended) if ended.exit_code != 0));
        apps_done || init_failed
    }

    /// The pod is over by itself; sidecars end now, the last one first. True when all are gone.
    fn stop_sidecars(&mut self) -> bool {
        if self.containers.iter().all(|c| !c.is_alive()) {
            return true;
        }
        let last = self.containers.iter().rposition(|c| c.role == Role::Sidecar && c.is_running());
        if let Some(index) = last
            && !self.containers[index].stopping
        {
            self.containers[index].done = true;
            self.kill(index, None);
        }
        for container in self.containers.iter_mut().filter(|c| c.role == Role::Sidecar) {
            container.done = true;
        }
        false
    }

    fn next_timer(&self) -> Option<Instant> {
        if self.termination.is_some() {
            return None;
        }
        let containers = self.containers.iter().filter(|c| !c.is_alive() && !c.done).filter_map(|c| c.not_before);
        let now = Instant::now();
        containers.chain(self.not_before).filter(|at| *at > now).min()
    }

    // ---- starting --------------------------------------------------------------------------------------------------

    fn start(&mut self, index: usize) {
        let Some(sandbox) = self.sandbox.clone() else { return };
        if matches!(&self.containers[index].state, State::Waiting { reason, .. } if *reason == "ErrImagePull") {
            self.show_pull_back_off(index);
            return;
        }
        let ip = sandbox.ip.to_string();
        let environment = super::environment::environment(&self.kubelet, &self.pod, &self.containers[index].template, &ip);
        let prepared = environment.and_then(|env| self.volumes.mounts(&self.containers[index].template, &env).map(|mounts| (env, mounts)));
        let (env, mounts) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.config_error(index, error.0),
        };
        let container = &mut self.containers[index];
        container.attempt += 1;
        container.not_before = None;
        container.stopping = false;
        container.started = false;
        container.probed_ready = false;
        container.image = container.template.image.clone().unwrap_or_default();
        container.state = State::Starting { id: None };
        let attempt = container.attempt;
        let request = starting::Request {
            template: container.template.clone(),
            env,
            mounts,
            log_path: log_path(&self.kubelet, &self.pod, container.name(), u32::try_from(container.restart_count_next()).unwrap_or(0)),
            attempt: u32::try_from(container.restart_count_next()).unwrap_or(0),
        };
        let (kubelet, pod, outbox, about) = (self.kubelet.clone(), self.pod.clone(), self.outbox.clone(), self.about_container(index));
        // Not tied to the container's tasks: a start that has begun is carried to its end, so that no process is lost.
        tokio::spawn(async move {
            let started = starting::start(&kubelet, &pod, request, &about).await;
            let _ = outbox.send(Message::Started(index, attempt, started));
        });
    }

    fn config_error(&mut self, index: usize, message: String) {
        let about = self.about_container(index);
        let container = &mut self.containers[index];
        let known = matches!(&container.state, State::Waiting { message: Some(known), .. } if *known == message);
        if !known {
            self.kubelet.recorder.warning(&about, "Failed", format!("Error: {message}"));
        }
        container.state = State::Waiting { reason: "CreateContainerConfigError", message: Some(message) };
        container.not_before = Some(Instant::now() + RETRY);
    }

    fn show_pull_back_off(&mut self, index: usize) {
        let about = self.about_container(index);
        let container = &mut self.containers[index];
        let image = container.template.image.clone().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\"");
        self.kubelet.recorder.normal(&about, "BackOff", message.clone());
        self.kubelet.recorder.warning(&about, "Failed", "Error: ImagePullBackOff");
        container.state = State::Waiting { reason: "ImagePullBackOff", message: Some(message) };
        container.not_before = Some(Instant::now() + container.pull_back_off.next_from_the_first(Instant::now()));
    }

    fn started(&mut self, index: usize, result: Result<Started, StartError>) {
        let about = self.about_container(index);
        match result {
            Ok(started) => self.process_runs(index, started),
            Err(StartError::Image(message)) => {
                let container = &mut self.containers[index];
                self.kubelet.recorder.warning(&about, "Failed", "Error: ErrImagePull");
                container.attempt -= 1;
                container.state = State::Waiting { reason: "ErrImagePull", message: Some(message) };
                container.not_before = Some(Instant::now() + PULL_ERROR_SHOWN);
            }
            Err(StartError::CannotStart(message)) => {
                self.kubelet.recorder.warning(&about, "Failed", format!("Error: {message}"));
                self.ended(index, Ended::not_started(message));
            }
        }
    }

    fn process_runs(&mut self, index: usize, started: Started) {
        let attempt = self.containers[index].attempt;
        let container = &mut self.containers[index];
        container.restart_count = container.restart_count_next();
        container.image_id = started.image_id;
        container.state = State::Starting { id: Some(started.id.clone()) };
        let (runtime, outbox, id) = (self.kubelet.runtime.clone(), self.outbox.clone(), started.id.clone());
        tokio::spawn(async move {
            let exit = runtime.wait_container(&id).await.unwrap_or_else(|error| {
                tracing::warn!(%error, container = id.0, "lost sight of a container");
                let now = Timestamp::now();
                ExitStatus { exit_code: 137, signal: None, oom_killed: false, started_at: now, finished_at: now }
            });
            let _ = outbox.send(Message::Exited(index, attempt, exit));
        });
        if self.termination.is_some() {
            // Deleted while it was being started.
            self.containers[index].state = State::Running { id: started.id, since: Timestamp::now() };
            self.kill_for_termination(index);
            return;
        }
        let hook = self.containers[index].template.lifecycle.as_ref().and_then(|l| l.post_start.clone());
        match (hook, self.target(index)) {
            (Some(hook), Some(target)) => {
                let outbox = self.outbox.clone();
                let task = tokio::spawn(async move {
                    let outcome = super::hooks::run(&target, &hook).await;
                    let _ = outbox.send(Message::PostStart(index, attempt, outcome));
                });
                self.containers[index].tasks.push((Task::Start, task.abort_handle()));
            }
            _ => self.runs(index),
        }
    }

    fn post_start_done(&mut self, index: usize, result: Result<(), String>) {
        if !matches!(self.containers[index].state, State::Starting { .. }) {
            return;
        }
        self.runs(index);
        if let Err(error) = result {
            let about = self.about_container(index);
            self.kubelet.recorder.warning(&about, "FailedPostStartHook", format!("PostStartHook failed: {error}"));
            self.kubelet.recorder.normal(&about, "Killing", "FailedPostStartHook");
            self.kill(index, None);
        }
    }

    /// The container counts as running from here on; its probes begin.
    fn runs(&mut self, index: usize) {
        let container = &mut self.containers[index];
        let Some(id) = container.id().cloned() else { return };
        container.state = State::Running { id, since: Timestamp::now() };
        if container.template.startup_probe.is_some() {
            self.begin_probe(index, Kind::Startup);
        } else {
            self.passed_startup(index);
        }
    }

    fn passed_startup(&mut self, index: usize) {
        let container = &mut self.containers[index];
        container.started = true;
        container.was_started = true;
        self.begin_probe(index, Kind::Readiness);
        self.begin_probe(index, Kind::Liveness);
    }

    fn begin_probe(&mut self, index: usize, kind: Kind) {
        let container = &self.containers[index];
        let template = &container.template;
        let probe = match kind {
            Kind::Startup => template.startup_probe.clone(),
            Kind::Readiness => template.readiness_probe.clone(),
            Kind::Liveness => template.liveness_probe.clone(),
        };
        let (Some(probe), Some(target)) = (probe, self.target(index)) else { return };
        let (outbox, attempt) = (self.outbox.clone(), container.attempt);
        let report = move |verdict| {
            let _ = outbox.send(Message::Probed(index, attempt, kind, verdict));
        };
        let about = self.about_container(index);
        let task = tokio::spawn(prober::run(kind, probe, target, about, self.kubelet.recorder.clone(), report));
        let class = if kind == Kind::Readiness { Task::Readiness } else { Task::Health };
        self.containers[index].tasks.push((class, task.abort_handle()));
    }

    fn target(&self, index: usize) -> Option<Target> {
        let container = &self.containers[index];
        Some(Target {
            runtime: self.kubelet.runtime.clone(),
            node: self.kubelet.node.name.clone(),
            pod_ip: self.pod_ip?,
            container: container.template.clone(),
            id: container.id()?.clone(),
        })
    }

    fn probed(&mut self, index: usize, kind: Kind, verdict: bool) {
        let container = &mut self.containers[index];
        if !container.is_running() {
            return;
        }
        match kind {
            Kind::Readiness => container.probed_ready = verdict,
            Kind::Startup if verdict => self.passed_startup(index),
            Kind::Liveness if verdict => {}
            Kind::Startup | Kind::Liveness => {
                let which = if kind == Kind::Startup { "startup" } else { "liveness" };
                let probe = if kind == Kind::Startup { &container.template.startup_probe } else { &container.template.liveness_probe };
                let own_grace = probe.as_ref().and_then(|p| p.termination_grace_period_seconds);
                let message = format!("Container {} failed {which} probe, will be restarted", container.name());
                self.kubelet.recorder.normal(&self.about_container(index), "Killing", message);
                self.kill(index, own_grace.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs));
            }
        }
    }

    // ---- ending ----------------------------------------------------------------------------------------------------

    fn exited(&mut self, index: usize, exit: &ExitStatus) {
        let Some(id) = self.containers[index].id().cloned() else { return };
        self.ended(index, Ended::of(id, exit));
    }

    /// Decides whether and when the container runs again.
    fn ended(&mut self, index: usize, ended: Ended) {
        let policy = self.policy();
        let (about, pod_key) = (self.about_container(index), key(&*self.pod));
        let uid = self.pod.metadata.uid.clone().unwrap_or_default();
        let terminating = self.termination.is_some();
        let container = &mut self.containers[index];
        container.abort(|_| true);
        container.started = false;
        container.probed_ready = false;
        container.stopping = false;
        if ended.id.is_none() {
            container.restart_count = container.restart_count_next();
        }
        let again = !terminating && !container.done && container.restarts(&policy, ended.exit_code);
        if !again {
            container.done = true;
            container.state = State::Ended(ended);
            self.tell_alive();
            return;
        }
        let wait = container.back_off.next(Instant::now());
        let start_failed = ended.id.is_none();
        container.previous = Some(ended);
        if wait.is_zero() {
            let reason = if start_failed { "RunContainerError" } else { "ContainerCreating" };
            container.state = State::Waiting { reason, message: None };
            return;
        }
        let name = container.name();
        let message = format!("back-off {} restarting failed container={name} pod={}_{}({uid})", go_duration(wait), pod_key.1, pod_key.0);
        let event = format!("Back-off restarting failed container {name} in pod {}_{}({uid})", pod_key.1, pod_key.0);
        container.state = State::Waiting { reason: "CrashLoopBackOff", message: Some(message) };
        container.not_before = Some(Instant::now() + wait);
        self.kubelet.recorder.warning(&about, "BackOff", event);
    }

    /// Stops one container that is to run again (or never, if `done`), in the pod's own grace period unless told.
    fn kill(&mut self, index: usize, grace: Option<Duration>) {
        let own = self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
        let grace = grace.unwrap_or(Duration::from_secs(u64::try_from(own).unwrap_or(30)));
        let (_, deadline) = watch::channel(Instant::now() + grace);
        self.spawn_kill(index, deadline, None);
    }

    fn spawn_kill(&mut self, index: usize, deadline: watch::Receiver<Instant>, turn: Option<killing::Turn>) {
        let Some(target) = self.target(index) else { return };
        let about = self.about_container(index);
        let container = &mut self.containers[index];
        container.abort(|task| matches!(task, Task::Kill | Task::Health | Task::Start));
        container.stopping = true;
        let hook = container.template.lifecycle.as_ref().and_then(|l| l.pre_stop.clone());
        let kill = Kill { target, hook, deadline, turn, recorder: self.kubelet.recorder.clone(), about };
        let task = tokio::spawn(killing::run(kill));
        container.tasks.push((Task::Kill, task.abort_handle()));
    }

    /// The pod is deleted; called again when its grace period is cut short.
    fn terminate(&mut self, grace: Duration) {
        if let Some(termination) = &self.termination {
            let sooner = termination.began + grace;
            termination.deadline.send_if_modified(|deadline| {
                let earlier = sooner < *deadline;
                *deadline = (*deadline).min(sooner);
                earlier
            });
            return;
        }
        let began = Instant::now();
        let alive = (0..self.containers.len()).filter(|i| self.containers[*i].is_alive()).collect();
        self.termination = Some(Termination { began, deadline: watch::channel(began + grace).0, alive: watch::channel(alive).0 });
        for index in 0..self.containers.len() {
            self.containers[index].abort(|task| matches!(task, Task::Health | Task::Start));
            if self.containers[index].id().is_some() {
                self.kill_for_termination(index);
            }
        }
    }

    fn kill_for_termination(&mut self, index: usize) {
        let Some(termination) = &self.termination else { return };
        let deadline = termination.deadline.subscribe();
        // A sidecar ends after the application and after the sidecars that started later.
        let later: BTreeSet<usize> = (0..self.containers.len())
            .filter(|i| match self.containers[*i].role {
                Role::App => true,
                Role::Sidecar => *i > index,
                Role::Init | Role::Ephemeral => false,
            })
            .collect();
        let turn =
            (self.containers[index].role == Role::Sidecar).then(|| killing::Turn { after: later, alive: termination.alive.subscribe() });
        let message = format!("Stopping container {}", self.containers[index].name());
        self.kubelet.recorder.normal(&self.about_container(index), "Killing", message);
        self.spawn_kill(index, deadline, turn);
    }

    fn tell_alive(&self) {
        if let Some(termination) = &self.termination {
            let alive: BTreeSet<usize> = (0..self.containers.len()).filter(|i| self.containers[*i].is_alive()).collect();
            termination.alive.send_if_modified(|known| {
                let changed = *known != alive;
                *known = alive;
                changed
            });
        }
    }

    fn advance_termination(&mut self) -> bool {
        if self.sandbox_pending || self.containers.iter().any(Container::is_alive) {
            return false;
        }
        self.stopped.get_or_insert_with(Stopped::default);
        true
    }

    async fn tear_down(&mut self) {
        for container in &mut self.containers {
            container.abort(|_| true);
        }
        if self.sandbox.take().is_some() {
            self.kubelet.runtime.remove_sandbox(self.pod.metadata.uid.as_deref().unwrap_or_default()).await;
        }
        if self.termination.is_some() && !self.gone_from_api {
            let options = DeleteOptions { grace_period_seconds: Some(0), uid: self.pod.metadata.uid.clone(), ..DeleteOptions::default() };
            if let Err(fault) = self.kubelet.pods.delete(&key(&*self.pod), &options) {
                tracing::debug!(%fault, "pod was removed from the API by someone else");
            }
        }
    }

    /// Logs of a pod that ended stay until it is deleted.
    async fn wait_for_deletion(mut self) {
        while !self.gone_from_api {
            match self.inbox.recv().await {
                Some(Message::Pod(None)) | None => self.gone_from_api = true,
                Some(Message::Pod(Some(pod))) => {
                    let deleted = pod.metadata.deletion_timestamp.is_some();
                    self.pod = pod;
                    if deleted {
                        let options =
                            DeleteOptions { grace_period_seconds: Some(0), uid: self.pod.metadata.uid.clone(), ..DeleteOptions::default() };
                        let _ = self.kubelet.pods.delete(&key(&*self.pod), &options);
                    }
                }
                Some(Message::Look(answer)) => {
                    let _ = answer.send(self.containers.iter().map(seen).collect());
                }
                Some(_) => {}
            }
        }
        let folder = pod_folder(&self.kubelet, &self.pod);
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
    }

    // ---- reporting -------------------------------------------------------------------------------------------------

    fn publish(&mut self) {
        if self.gone_from_api {
            return;
        }
        let view = View {
            containers: &self.containers,
            pod_ip: self.pod_ip,
            host_ip: self.kubelet.node.address,
            start_time: self.start_time,
            stopped: self.stopped.clone(),
        };
        let mut next = (*self.pod).clone();
        status::update(&mut next, &view);
        if next.status == self.pod.status {
            return;
        }
        let uid = self.pod.metadata.uid.clone();
        let written = self.kubelet.pods.modify(&self.key(), |pod| {
            // A pod of the same name may have been made anew.
            if pod.metadata.uid == uid {
                status::update(pod, &view);
            }
        });
        match written {
            Ok(pod) if pod.metadata.uid == uid => self.pod = pod,
            Ok(_) => {}
            Err(fault) => tracing::debug!(%fault, "status of a pod that is gone"),
        }
    }

    fn key(&self) -> Key {
        key(&*self.pod)
    }

    /// Events about a container name it by its field path.
    fn about_container(&self, index: usize) -> ObjectReference {
        let container = &self.containers[index];
        let list = match container.role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::App => "containers",
            Role::Ephemeral => "ephemeralContainers",
        };
        ObjectReference { field_path: Some(format!("spec.{list}{{{}}}", container.name())), ..self.about.clone() }
    }
}

impl Container {
    /// The restart count that the run being started has.
    fn restart_count_next(&self) -> i32 {
        if self.last_end().is_some() { self.restart_count + 1 } else { self.restart_count }
    }
}

fn seen(container: &Container) -> Seen {
    let waiting = match &container.state {
        State::Waiting { reason, .. } => Some((*reason).to_owned()),
        State::Starting { id: None } => Some("ContainerCreating".to_owned()),
        _ => None,
    };
    let attempt = u32::try_from(container.restart_count).unwrap_or(0);
    let previous = match (&container.previous, &container.state) {
        (None, _) => None,
        // Between two runs the last one is both.
        (Some(_), State::Waiting { .. } | State::Starting { id: None }) => Some(attempt),
        (Some(_), _) => attempt.checked_sub(1),
    };
    Seen {
        name: container.name().to_owned(),
        id: container.id().cloned(),
        attempt,
        previous,
        ever_started: container.id().is_some() || container.last_end().is_some_and(|ended| ended.id.is_some()),
        waiting,
    }
}

/// `10s`, `2m40s`, `5m0s`: as Go prints a duration of whole seconds.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (duration.subsec_millis(), seconds / 60) {
        (millis, 0) if millis > 0 => format!("{}ms", duration.as_millis()),
        (_, 0) => format!("{seconds}s"),
        (_, minutes) => format!("{minutes}m{}s", seconds % 60),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod fake_runtime;
#[cfg(test)]
mod tests;
