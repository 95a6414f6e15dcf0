//! Ends of containers and of the pod: restarts with back-off, the order of termination, what is left to clean up.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Message, Termination, Worker, log_path, message_path, pod_folder, seen};
use crate::controllers::pods::key;
use crate::kubelet::container::{Container, Ended, Role, State, Task};
use crate::kubelet::killing::{self, Kill};
use crate::kubelet::logs;
use crate::kubelet::status::Stopped;
use crate::runtime::ExitStatus;
use crate::store::DeleteOptions;

/// Longest termination message that is kept (`MaxContainerTerminationMessageLength`).
const MAX_MESSAGE: usize = 4096;

impl Worker {
    pub(super) fn exited(&mut self, index: usize, exit: &ExitStatus) {
        let Some(id) = self.containers[index].id().cloned() else { return };
        let mut ended = Ended::of(id, exit);
        ended.message = self.last_words(index, exit.exit_code);
        self.ended(index, ended);
    }

    /// What the container left in its termination message file; or, if it asks for that, the end of its log.
    fn last_words(&self, index: usize, exit_code: i32) -> Option<String> {
        let container = &self.containers[index];
        let run = u32::try_from(container.restart_count).unwrap_or(0);
        let read = |path| std::fs::read(path).unwrap_or_default();
        let mut words = read(message_path(&self.kubelet, &self.pod, container.name(), run));
        let from_log = container.template.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if words.is_empty() && from_log && exit_code != 0 {
            words = logs::end(&read(log_path(&self.kubelet, &self.pod, container.name(), run)));
        }
        words.truncate(MAX_MESSAGE);
        Some(String::from_utf8_lossy(&words).into_owned()).filter(|words| !words.is_empty())
    }

    /// Decides whether and when the container runs again.
    pub(super) fn ended(&mut self, index: usize, ended: Ended) {
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
    pub(super) fn kill(&mut self, index: usize, grace: Option<Duration>) {
        let grace = grace.unwrap_or_else(|| self.own_grace());
        let (_, deadline) = watch::channel(Instant::now() + grace);
        self.spawn_kill(index, deadline, None);
    }

    pub(super) fn spawn_kill(&mut self, index: usize, deadline: watch::Receiver<Instant>, turn: Option<killing::Turn>) {
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
    pub(super) fn terminate(&mut self, grace: Duration) {
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

    pub(super) fn kill_for_termination(&mut self, index: usize) {
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

    pub(super) fn tell_alive(&self) {
        if let Some(termination) = &self.termination {
            let alive: BTreeSet<usize> = (0..self.containers.len()).filter(|i| self.containers[*i].is_alive()).collect();
            termination.alive.send_if_modified(|known| {
                let changed = *known != alive;
                *known = alive;
                changed
            });
        }
    }

    pub(super) fn advance_termination(&mut self) -> bool {
        if self.sandbox_pending || self.containers.iter().any(Container::is_alive) {
            return false;
        }
        self.stopped.get_or_insert_with(|| {
            if !self.overran {
                return Stopped::default();
            }
            Stopped {
                reason: Some("DeadlineExceeded".to_owned()),
                message: Some("Pod was active on the node longer than the specified deadline".to_owned()),
                failed: true,
            }
        });
        true
    }

    pub(super) async fn tear_down(&mut self) {
        for container in &mut self.containers {
            container.abort(|_| true);
        }
        if self.sandbox.take().is_some() {
            self.kubelet.runtime.remove_sandbox(self.pod.metadata.uid.as_deref().unwrap_or_default()).await;
        }
        if self.pod.metadata.deletion_timestamp.is_some() && !self.gone_from_api {
            self.kubelet.link.confirm().await;
            let options = DeleteOptions { grace_period_seconds: Some(0), uid: self.pod.metadata.uid.clone(), ..DeleteOptions::default() };
            if let Err(fault) = self.kubelet.pods.delete(&key(&*self.pod), &options) {
                tracing::debug!(%fault, "pod was removed from the API by someone else");
            }
        }
    }

    /// Logs of a pod that ended stay until it is deleted.
    pub(super) async fn wait_for_deletion(mut self) {
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
