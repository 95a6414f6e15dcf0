//! What a pod's status says about the containers of its worker (`kubelet_pods.go`, `status_manager.go`).

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition,
    PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::container::{Container, Ended, Role, State};
use super::quantity;

const OWN_CONDITIONS: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// What a status is made from besides the pod itself.
pub(super) struct View<'a> {
    pub(super) containers: &'a [Container],
    pub(super) pod_ip: Option<Ipv4Addr>,
    pub(super) host_ip: Ipv4Addr,
    pub(super) start_time: Timestamp,
    /// The pod is over although its policy would restart containers: it was deleted, or a deadline passed.
    pub(super) stopped: Option<Stopped>,
}

/// Why nothing of the pod runs any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopped {
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    pub(super) failed: bool,
}

/// Merges what the kubelet knows into the pod's status. Conditions of others (scheduler, readiness gates) stay.
pub(super) fn update(pod: &mut Pod, view: &View<'_>) {
    let phase = phase(pod, view);
    let qos_class = qos_class(pod);
    let gates: Vec<String> =
        pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten()).map(|gate| gate.condition_type.clone()).collect();
    let generation = pod.metadata.generation;
    let status = pod.status.get_or_insert_default();
    let of = |roles: &[Role]| -> Option<Vec<ContainerStatus>> {
        let statuses: Vec<_> = view.containers.iter().filter(|c| roles.contains(&c.role)).map(container_status).collect();
        Some(statuses).filter(|statuses| !statuses.is_empty())
    };
    status.init_container_statuses = of(&[Role::Init, Role::Sidecar]);
    status.container_statuses = of(&[Role::App]);
    status.ephemeral_container_statuses = of(&[Role::Ephemeral]);
    status.host_ip = Some(view.host_ip.to_string());
    status.host_ips = Some(vec![HostIP { ip: view.host_ip.to_string() }]);
    if let Some(ip) = view.pod_ip {
        status.pod_ip = Some(ip.to_string());
        status.pod_ips = Some(vec![PodIP { ip: ip.to_string() }]);
    }
    status.start_time.get_or_insert(Time(view.start_time));
    status.qos_class = Some(qos_class);
    status.observed_generation = generation;
    status.phase = Some(phase.to_owned());
    if let Some(stopped) = &view.stopped {
        status.reason.clone_from(&stopped.reason);
        status.message.clone_from(&stopped.message);
    }
    conditions(status, view, phase, &gates);
}

fn conditions(status: &mut PodStatus, view: &View<'_>, phase: &str, gates: &[String]) {
    let known = status.conditions.clone().unwrap_or_default();
    let mut set = |kind: &str, holds: bool, reason: Option<&str>, message: Option<String>| {
        let value = if holds { "True" } else { "False" };
        let conditions = status.conditions.get_or_insert_default();
        let before = known.iter().find(|c| c.type_ == kind);
        let since = before.filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
        let condition = PodCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: reason.map(str::to_owned),
            message,
            last_transition_time: since.or_else(|| Some(Time(now()))),
            ..PodCondition::default()
        };
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(slot) => *slot = condition,
            None => conditions.push(condition),
        }
    };
    // The kubelet writes its own in this order, behind those of others.
    let order = |kind: &str| OWN_CONDITIONS.iter().position(|own| *own == kind).map_or(0, |at| at + 1);
    let names = |containers: Vec<&Container>| containers.iter().map(|c| c.name()).collect::<Vec<_>>().join(" ");
    set("PodReadyToStartContainers", view.pod_ip.is_some() && view.stopped.is_none(), None, None);
    let waiting_init: Vec<_> = view.containers.iter().filter(|c| !is_initialized(c)).collect();
    match phase {
        "Succeeded" => set("Initialized", true, Some("PodCompleted"), None),
        _ if waiting_init.is_empty() => set("Initialized", true, None, None),
        _ => {
            let message = format!("containers with incomplete status: [{}]", names(waiting_init));
            set("Initialized", false, Some("ContainersNotInitialized"), Some(message));
        }
    }
    let unready: Vec<_> = view.containers.iter().filter(|c| matches!(c.role, Role::App | Role::Sidecar) && !c.is_ready()).collect();
    let (ready, reason, message) = match phase {
        "Succeeded" => (false, Some("PodCompleted"), None),
        "Failed" => (false, Some("PodFailed"), None),
        _ if unready.is_empty() => (true, None, None),
        _ => (false, Some("ContainersNotReady"), Some(format!("containers with unready status: [{}]", names(unready)))),
    };
    set("ContainersReady", ready, reason, message.clone());
    let open_gate = gates.iter().find(|gate| !known.iter().any(|c| &c.type_ == *gate && c.status == "True"));
    match open_gate {
        Some(gate) if ready => {
            let message = match known.iter().find(|c| &c.type_ == gate) {
                Some(_) => format!("the status of pod readiness gate \"{gate}\" is not \"True\", but False"),
                None => format!("corresponding condition of pod readiness gate \"{gate}\" does not exist."),
            };
            set("Ready", false, Some("ReadinessGatesNotReady"), Some(message));
        }
        _ => set("Ready", ready, reason, message),
    }
    status.conditions.iter_mut().for_each(|conditions| conditions.sort_by_key(|condition| order(&condition.type_)));
}

/// Whether the container no longer holds up what comes after it.
pub(super) fn is_initialized(container: &Container) -> bool {
    match container.role {
        Role::Init => matches!(&container.state, State::Ended(ended) if ended.exit_code == 0),
        // Once it was started, a sidecar that fails later does not undo the pod's initialization.
        Role::Sidecar => container.was_started,
        Role::App | Role::Ephemeral => true,
    }
}

/// `getPhase`: what the containers of the pod have come to.
fn phase(pod: &Pod, view: &View<'_>) -> &'static str {
    let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    if view.stopped.as_ref().is_some_and(|stopped| stopped.failed) {
        return "Failed";
    }
    if let Some(before @ ("Succeeded" | "Failed")) = pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
        return if before == "Succeeded" { "Succeeded" } else { "Failed" };
    }
    let apps: Vec<&Container> = view.containers.iter().filter(|c| c.role == Role::App).collect();
    let code = |c: &Container| match &c.state {
        State::Ended(ended) => Some(ended.exit_code),
        _ => None,
    };
    if view.stopped.is_some() {
        let failed = apps.iter().any(|c| c.last_end().is_none_or(|ended| ended.exit_code != 0));
        return if failed { "Failed" } else { "Succeeded" };
    }
    if view.containers.iter().any(|c| c.role == Role::Init && c.done && code(c).is_some_and(|code| code != 0)) && policy == "Never" {
        return "Failed";
    }
    if view.containers.iter().any(|c| !is_initialized(c)) {
        return "Pending";
    }
    if apps.iter().any(|c| c.last_end().is_none() && !c.is_running()) {
        return "Pending";
    }
    if apps.iter().all(|c| c.done) {
        // Sidecars end after the last container; until then the pod still runs.
        let sidecars_run = view.containers.iter().any(|c| c.role == Role::Sidecar && c.is_alive());
        if sidecars_run {
            return "Running";
        }
        return if apps.iter().all(|c| code(c) == Some(0)) { "Succeeded" } else { "Failed" };
    }
    "Running"
}

fn container_status(container: &Container) -> ContainerStatus {
    let image = container.template.image.clone().unwrap_or_default();
    let state = match &container.state {
        State::Waiting { reason, message } => waiting(reason, message.clone()),
        State::Starting { .. } => waiting("ContainerCreating", None),
        State::Running { since, .. } => {
            ContainerState { running: Some(ContainerStateRunning { started_at: Some(Time(whole(*since))) }), ..ContainerState::default() }
        }
        State::Ended(ended) => terminated(ended),
    };
    let shown_id = match &container.state {
        State::Ended(ended) => ended.id.clone(),
        _ => container.id().cloned().or_else(|| container.previous.as_ref().and_then(|p| p.id.clone())),
    };
    let mounts = container.template.volume_mounts.iter().flatten().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
    });
    let mounts: Vec<_> = mounts.collect();
    // Read from its cgroup, so only of a container that there was (in-place resizing, since 1.33).
    let resources = shown_id.is_some().then(|| container.template.resources.clone().unwrap_or_default());
    ContainerStatus {
        name: container.name().to_owned(),
        image: if container.image.is_empty() || shown_id.is_none() { image } else { full_name(&container.image) },
        allocated_resources: resources.as_ref().and_then(|resources| resources.requests.clone()),
        resources,
        volume_mounts: Some(mounts).filter(|mounts| !mounts.is_empty()),
        image_id: container.image_id.clone(),
        container_id: shown_id.map(|id| container_id(&id.0)),
        ready: container.is_ready(),
        started: Some(container.started && container.is_running()),
        restart_count: container.restart_count,
        state: Some(state),
        last_state: Some(container.previous.as_ref().map(terminated).unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

/// An image's name as containerd knows it: with registry and tag (`reference.ParseDockerRef`).
fn full_name(image: &str) -> String {
    let registry = image.split_once('/').map(|(first, _)| first).filter(|first| first.contains(['.', ':']) || *first == "localhost");
    let name = match registry {
        Some(_) => image.to_owned(),
        None if image.contains('/') => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { name } else { format!("{name}:latest") }
}

fn container_id(id: &str) -> String {
    if id.contains("://") { id.to_owned() } else { format!("containerd://{id}") }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState { waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }), ..ContainerState::default() }
}

fn terminated(ended: &Ended) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: ended.id.as_ref().map(|id| container_id(&id.0)),
        exit_code: ended.exit_code,
        signal: ended.signal,
        reason: Some(ended.reason.clone()),
        message: ended.message.clone(),
        // Go's zero time stands for "never", as kubectl shows it.
        started_at: Some(Time(ended.started_at.map_or(Timestamp::UNIX_EPOCH, whole))),
        finished_at: Some(Time(whole(ended.finished_at))),
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn now() -> Timestamp {
    whole(Timestamp::now())
}

/// `metav1.Time` is written in whole seconds; anything finer would look like a change each time.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Guaranteed: every container has limits for processor and memory equal to its requests. BestEffort: none has any.
fn qos_class(pod: &Pod) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let (mut guaranteed, mut any) = (true, false);
    for container in containers {
        let resources = container.resources.clone().unwrap_or_default();
        let (limits, requests) = (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
        for name in ["cpu", "memory"] {
            let of = |list: &std::collections::BTreeMap<String, _>| list.get(name).and_then(quantity::value).filter(|v| *v > 0.0);
            let (limit, request) = (of(&limits), of(&requests));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_containerd_does() {
        for (given, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("gatelab/lab:dev", "docker.io/gatelab/lab:dev"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("a@sha256:0", "docker.io/library/a@sha256:0"),
        ] {
            assert_eq!(full_name(given), full);
        }
    }
}
