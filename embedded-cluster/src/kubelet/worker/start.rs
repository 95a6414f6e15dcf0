//! Starting a pod's containers and probing them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container as ContainerTemplate;
use tokio::time::Instant;

use super::{Message, RETRY, Worker, log_path, message_path};
use crate::kubelet::container::{Container, Ended, Role, State, Task};
use crate::kubelet::probe_actions::Target;
use crate::kubelet::prober::{self, Kind};
use crate::kubelet::starting::{self, StartError, Started};
use crate::kubelet::{environment, hooks};
use crate::runtime::{ContainerId, ExitStatus, Mount};

/// ErrImagePull is shown this long before it becomes ImagePullBackOff.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);

impl Worker {
    pub(super) fn start(&mut self, index: usize) {
        let Some(sandbox) = self.sandbox.clone() else { return };
        if matches!(&self.containers[index].state, State::Waiting { reason, .. } if *reason == "ErrImagePull") {
            self.show_pull_back_off(index);
            return;
        }
        let ip = sandbox.ip.to_string();
        let environment = environment::environment(&self.kubelet, &self.pod, &self.containers[index].template, &ip);
        let run = u32::try_from(self.containers[index].restart_count_next()).unwrap_or(0);
        let prepared = environment.and_then(|env| self.volumes.mounts(&self.containers[index].template, &env).map(|mounts| (env, mounts)));
        let prepared = prepared.map_err(|error| error.0);
        let prepared = prepared.and_then(|(env, mounts)| self.debugged(index).map(|target| (env, mounts, target)));
        let (env, mut mounts, target) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.not_configured(index, error),
        };
        let message = message_path(&self.kubelet, &self.pod, self.containers[index].name(), run);
        match message_mount(&self.containers[index].template, message) {
            Ok(mount) => mounts.push(mount),
            // A container without a place for its last words runs all the same.
            Err(error) => tracing::warn!(%error, "no termination message file"),
        }
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
            log_path: log_path(&self.kubelet, &self.pod, container.name(), run),
            attempt: run,
            target,
        };
        let (kubelet, pod, outbox, about) = (self.kubelet.clone(), self.pod.clone(), self.outbox.clone(), self.about_container(index));
        // Not tied to the container's tasks: a start that has begun is carried to its end, so that no process is lost.
        tokio::spawn(async move {
            let started = starting::start(&kubelet, &pod, request, &about).await;
            let _ = outbox.send(Message::Started(index, attempt, started));
        });
    }

    /// The container that an ephemeral one targets.
    fn debugged(&self, index: usize) -> Result<Option<ContainerId>, String> {
        let container = &self.containers[index];
        let ephemeral = self.pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten()).find(|e| e.name == container.name());
        let wanted = ephemeral.filter(|_| container.role == Role::Ephemeral).and_then(|e| e.target_container_name.as_deref());
        let Some(wanted) = wanted.filter(|name| !name.is_empty()) else { return Ok(None) };
        let target = self.containers.iter().find(|c| c.name() == wanted).and_then(|c| c.id());
        target.cloned().map(Some).ok_or_else(|| format!("unable to find target container \"{wanted}\""))
    }

    /// The kubelet looks for the image before it makes up a container's configuration, each time.
    fn not_configured(&mut self, index: usize, error: String) {
        let container = &mut self.containers[index];
        let image = container.template.image.clone().unwrap_or_default();
        container.not_before = Some(Instant::now() + RETRY);
        match &container.state {
            // Told already; an event every other second would be noise.
            State::Waiting { reason: "CreateContainerConfigError", message: Some(known) } if *known == error => return,
            State::Waiting { reason: "CreateContainerConfigError", .. } => {}
            _ => container.state = State::Starting { id: None },
        }
        container.attempt += 1;
        let (kubelet, outbox, about, attempt) =
            (self.kubelet.clone(), self.outbox.clone(), self.about_container(index), self.containers[index].attempt);
        tokio::spawn(async move {
            let found = starting::find_image(&kubelet, &image, &about).await;
            let outcome = Err(found.err().unwrap_or(StartError::Configuration(error)));
            let _ = outbox.send(Message::Started(index, attempt, outcome));
        });
    }

    pub(super) fn config_error(&mut self, index: usize, message: String) {
        let about = self.about_container(index);
        let container = &mut self.containers[index];
        self.kubelet.recorder.warning(&about, "Failed", format!("Error: {message}"));
        container.state = State::Waiting { reason: "CreateContainerConfigError", message: Some(message) };
        container.not_before = Some(Instant::now() + RETRY);
    }

    pub(super) fn show_pull_back_off(&mut self, index: usize) {
        let about = self.about_container(index);
        let container = &mut self.containers[index];
        let image = container.template.image.clone().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\"");
        self.kubelet.recorder.normal(&about, "BackOff", message.clone());
        let message = match &container.state {
            State::Waiting { reason: "ErrImagePull", message: Some(why) } => format!("{message}: ErrImagePull: {why}"),
            _ => message,
        };
        self.kubelet.recorder.warning(&about, "Failed", "Error: ImagePullBackOff");
        container.state = State::Waiting { reason: "ImagePullBackOff", message: Some(message) };
        container.not_before = Some(Instant::now() + container.pull_back_off.next_from_the_first(Instant::now()));
    }

    pub(super) fn started(&mut self, index: usize, result: Result<Started, StartError>) {
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
            Err(StartError::Configuration(message)) => {
                self.containers[index].attempt -= 1;
                self.config_error(index, message);
            }
            Err(StartError::CannotStart(message)) => {
                self.kubelet.recorder.warning(&about, "Failed", format!("Error: {message}"));
                self.ended(index, Ended::not_started(message));
            }
        }
    }

    pub(super) fn process_runs(&mut self, index: usize, started: Started) {
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
                    let outcome = hooks::run(&target, &hook).await;
                    let _ = outbox.send(Message::PostStart(index, attempt, outcome));
                });
                self.containers[index].tasks.push((Task::Start, task.abort_handle()));
            }
            _ => self.runs(index),
        }
    }

    pub(super) fn post_start_done(&mut self, index: usize, result: Result<(), String>) {
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
    pub(super) fn runs(&mut self, index: usize) {
        let container = &mut self.containers[index];
        let Some(id) = container.id().cloned() else { return };
        container.state = State::Running { id, since: Timestamp::now() };
        if container.template.startup_probe.is_some() {
            self.begin_probe(index, Kind::Startup);
        } else {
            self.passed_startup(index);
        }
    }

    pub(super) fn passed_startup(&mut self, index: usize) {
        let container = &mut self.containers[index];
        container.started = true;
        container.was_started = true;
        self.begin_probe(index, Kind::Readiness);
        self.begin_probe(index, Kind::Liveness);
    }

    pub(super) fn begin_probe(&mut self, index: usize, kind: Kind) {
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

    pub(super) fn target(&self, index: usize) -> Option<Target> {
        let container = &self.containers[index];
        Some(Target {
            runtime: self.kubelet.runtime.clone(),
            node: self.kubelet.node.name.clone(),
            pod_ip: self.pod_ip?,
            container: container.template.clone(),
            id: container.id()?.clone(),
        })
    }

    pub(super) fn probed(&mut self, index: usize, kind: Kind, verdict: bool) {
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
}

fn message_mount(template: &ContainerTemplate, source: PathBuf) -> io::Result<Mount> {
    if let Some(folder) = source.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&source, [])?;
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o666))?;
    let target = template.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    Ok(Mount { source, target: PathBuf::from(target), read_only: false })
}

impl Container {
    /// The restart count that the run being started has.
    pub(super) fn restart_count_next(&self) -> i32 {
        if self.last_end().is_some() { self.restart_count + 1 } else { self.restart_count }
    }
}
