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

use super::container::{Container, Role, State};
use super::node::Kubelet;
use super::prober::Kind;
use super::starting::{self, StartError, Started};
use super::status::{self, Stopped, View};
use super::sysctls;
use super::volumes::Volumes;
use crate::controllers::events::reference;
use crate::controllers::objects::Key;
use crate::controllers::pods::key;
use crate::runtime::{ContainerId, ExitStatus, Sandbox};

/// How long a pod waits before it tries again what has no back-off of its own (mounting, configuration).
const RETRY: Duration = Duration::from_secs(2);

/// What a worker is told. Indices are those of its containers, attempts make late messages recognizable.
pub(super) enum Message {
    /// A new version of the pod, or that it is gone from the API.
    Pod(Option<Arc<Pod>>),
    /// The API is within reach again: what was not reported is reported now.
    Reconnected,
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
    /// Was made with `stdin: true`, for a client that attaches.
    pub(super) expects_client: bool,
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

/// Where a run's `terminationMessagePath` is on this machine.
pub(super) fn message_path(kubelet: &Kubelet, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    pod_folder(kubelet, pod).join("messages").join(container).join(format!("{attempt}.message"))
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
    began: Instant,
    /// Nothing that has no back-off of its own is tried before.
    not_before: Option<Instant>,
    /// A message that would otherwise be repeated at every try.
    last_complaint: Option<String>,
    termination: Option<Termination>,
    stopped: Option<Stopped>,
    gone_from_api: bool,
    /// `activeDeadlineSeconds` has passed.
    overran: bool,
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
            began: Instant::now(),
            not_before: None,
            last_complaint: None,
            termination: None,
            stopped: None,
            gone_from_api: false,
            overran: false,
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
            Message::Reconnected | Message::Started(..) | Message::PostStart(..) | Message::Exited(..) | Message::Probed(..) => {}
        }
    }

    fn is_current(&self, index: usize, attempt: u32) -> bool {
        self.containers.get(index).is_some_and(|c| c.attempt == attempt)
    }

    /// When `activeDeadlineSeconds` is over.
    fn active_until(&self) -> Option<Instant> {
        let seconds = self.pod.spec.as_ref().and_then(|s| s.active_deadline_seconds)?;
        Some(self.began + Duration::from_secs(u64::try_from(seconds).ok()?))
    }

    fn own_grace(&self) -> Duration {
        let seconds = self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(30))
    }

    fn policy(&self) -> String {
        self.pod.spec.as_ref().and_then(|s| s.restart_policy.clone()).unwrap_or_else(|| "Always".to_owned())
    }

    fn pod_changed(&mut self) {
        self.add_ephemeral();
        self.replace_images();
        if self.pod.metadata.deletion_timestamp.is_some() {
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

    /// Takes every step that can be taken now; true when nothing is left to do for this pod.
    fn advance(&mut self) -> bool {
        if self.termination.is_none() && self.active_until().is_some_and(|at| at <= Instant::now()) {
            self.overran = true;
            self.terminate(self.own_grace());
        }
        if self.termination.is_some() {
            return self.advance_termination();
        }
        if self.sandbox.is_none() {
            if let Some(message) = sysctls::refused(&self.pod) {
                return self.reject("SysctlForbidden", message);
            }
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

    /// The pod ends without having begun.
    fn reject(&mut self, reason: &str, message: String) -> bool {
        self.kubelet.recorder.warning(&self.about, reason, message.clone());
        let message = format!("Pod was rejected: {message}");
        self.stopped = Some(Stopped { reason: Some(reason.to_owned()), message: Some(message), failed: true });
        true
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
        for (index, container) in self.containers.iter().enumerate() {
            match container.role {
                Role::Init | Role::Sidecar => {
                    // An init container that is over is not looked at again once the application runs.
                    let over = container.role == Role::Init && self.application_began();
                    if !over && due(container) {
                        return Some(index);
                    }
                    if !status::is_initialized(container) {
                        break;
                    }
                }
                Role::App if due(container) => return Some(index),
                Role::App | Role::Ephemeral => {}
            }
        }
        let ephemeral = |(_, c): &(usize, &Container)| c.role == Role::Ephemeral && due(c);
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
            self.stopped.get_or_insert_with(Stopped::default);
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
        containers.chain(self.not_before).chain(self.active_until()).filter(|at| *at > now).min()
    }

    fn publish(&mut self) {
        if self.gone_from_api || !self.kubelet.link.is_up() {
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
        expects_client: container.template.stdin == Some(true),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

mod end;
#[cfg(test)]
mod fake_runtime;
mod start;
#[cfg(test)]
mod tests;
