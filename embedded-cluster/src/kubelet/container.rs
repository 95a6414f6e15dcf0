//! One container of a pod as its worker knows it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerTemplate, Pod};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::back_off::{BackOff, BackOffLimits};
use crate::runtime::{ContainerId, ExitStatus};

/// What part a container has in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: is started before the next one, runs as long as the pod.
    Sidecar,
    App,
    /// Added to a running pod by `kubectl debug`; never started again.
    Ephemeral,
}

/// How a container's last run ended, as it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) id: Option<ContainerId>,
    pub(super) exit_code: i32,
    pub(super) signal: Option<i32>,
    pub(super) reason: String,
    pub(super) message: Option<String>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Timestamp,
}

impl Ended {
    pub(super) fn of(id: ContainerId, status: &ExitStatus) -> Self {
        let reason = match status.exit_code {
            _ if status.oom_killed => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        };
        Self {
            id: Some(id),
            exit_code: status.exit_code,
            // The CRI reports only the exit code (128 + signal); `signal` stays 0 on containerd.
            signal: None,
            reason: reason.to_owned(),
            message: None,
            started_at: Some(status.started_at),
            finished_at: status.finished_at,
        }
    }

    /// The command could not be started at all.
    pub(super) fn not_started(message: String) -> Self {
        Self {
            id: None,
            exit_code: 128,
            signal: None,
            reason: "StartError".to_owned(),
            message: Some(message),
            started_at: None,
            finished_at: Timestamp::now(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum State {
    /// Not running, with the reason people are shown.
    Waiting {
        reason: &'static str,
        message: Option<String>,
    },
    /// Being started; has an id once its process runs and only `postStart` is waited for.
    Starting {
        id: Option<ContainerId>,
    },
    Running {
        id: ContainerId,
        since: Timestamp,
    },
    /// Ended and not started again, or not yet.
    Ended(Ended),
}

pub(super) struct Container {
    pub(super) template: ContainerTemplate,
    pub(super) role: Role,
    pub(super) state: State,
    /// The run before the current one.
    pub(super) previous: Option<Ended>,
    /// Counts starts; messages about an older one are ignored.
    pub(super) attempt: u32,
    pub(super) restart_count: i32,
    pub(super) image_id: String,
    /// The image that the current run was started from.
    pub(super) image: String,
    /// Passed its startup probe, or has none and runs.
    pub(super) started: bool,
    /// Was `started` in any run: what waits for a sidecar does so only once.
    pub(super) was_started: bool,
    /// The readiness probe's verdict.
    pub(super) probed_ready: bool,
    pub(super) back_off: BackOff,
    pub(super) pull_back_off: BackOff,
    /// Must not be started earlier.
    pub(super) not_before: Option<Instant>,
    /// Is being killed.
    pub(super) stopping: bool,
    /// Ended for good: will not be started again.
    pub(super) done: bool,
    /// Probes, hooks and the killer of the current run.
    pub(super) tasks: Vec<(Task, AbortHandle)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Start,
    Readiness,
    /// Startup and liveness probes, which end with the pod's deletion.
    Health,
    Kill,
}

impl Container {
    pub(super) fn new(template: ContainerTemplate, role: Role, limits: BackOffLimits) -> Self {
        Self {
            template,
            role,
            state: State::Waiting { reason: "ContainerCreating", message: None },
            previous: None,
            attempt: 0,
            restart_count: 0,
            image_id: String::new(),
            image: String::new(),
            started: false,
            was_started: false,
            probed_ready: false,
            back_off: BackOff::new(limits),
            pull_back_off: BackOff::new(limits),
            not_before: None,
            stopping: false,
            done: false,
            tasks: Vec::new(),
        }
    }

    /// The containers of a pod in the order in which they start.
    pub(super) fn all_of(pod: &Pod, limits: BackOffLimits) -> Vec<Self> {
        let spec = pod.spec.clone().unwrap_or_default();
        let init = spec.init_containers.unwrap_or_default().into_iter().map(|template| {
            let role = if template.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init };
            Self::new(template, role, limits)
        });
        let mut containers: Vec<Self> = init.chain(spec.containers.into_iter().map(|c| Self::new(c, Role::App, limits))).collect();
        if containers.iter().any(|c| matches!(c.role, Role::Init | Role::Sidecar)) {
            for container in containers.iter_mut().filter(|c| c.role == Role::App) {
                container.state = State::Waiting { reason: "PodInitializing", message: None };
            }
            let first_sidecars = containers.iter_mut().skip(1).filter(|c| matches!(c.role, Role::Init | Role::Sidecar));
            first_sidecars.for_each(|c| c.state = State::Waiting { reason: "PodInitializing", message: None });
        }
        containers
    }

    pub(super) fn name(&self) -> &str {
        &self.template.name
    }

    pub(super) fn id(&self) -> Option<&ContainerId> {
        match &self.state {
            State::Starting { id } => id.as_ref(),
            State::Running { id, .. } => Some(id),
            State::Waiting { .. } | State::Ended(_) => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Has a process, or will have one in a moment.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Starting { .. })
    }

    pub(super) fn is_ready(&self) -> bool {
        match (&self.state, self.role) {
            (State::Ended(ended), Role::Init) => ended.exit_code == 0,
            (State::Running { .. }, Role::Sidecar | Role::App) => {
                self.started && (self.template.readiness_probe.is_none() || self.probed_ready)
            }
            _ => false,
        }
    }

    /// The run that ended last.
    pub(super) fn last_end(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            _ => self.previous.as_ref(),
        }
    }

    /// Whether the pod's policy lets it run again after that end.
    pub(super) fn restarts(&self, pod_policy: &str, exit_code: i32) -> bool {
        match self.role {
            Role::Sidecar => true,
            Role::Ephemeral => false,
            Role::Init => exit_code != 0 && pod_policy != "Never",
            Role::App => pod_policy == "Always" || pod_policy == "OnFailure" && exit_code != 0,
        }
    }

    pub(super) fn abort(&mut self, which: impl Fn(Task) -> bool) {
        self.tasks.retain(|(task, handle)| {
            if which(*task) {
                handle.abort();
            }
            !which(*task)
        });
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.abort(|_| true);
    }
}
