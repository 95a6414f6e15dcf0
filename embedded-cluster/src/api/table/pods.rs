//! The row of a pod; its status is the one word that says most (`printPod`).

use serde_json::Value;

use super::text::{NONE, age, list, moment, name, number, or_none, since};

pub(super) fn pod(pod: &Value) -> Vec<Value> {
    let summary = Summary::of(pod);
    let gates = || list(&pod["spec"]["readinessGates"]);
    let total = gates().count();
    let is_true = |gate: &Value| list(&pod["status"]["conditions"]).any(|c| c["type"] == gate["conditionType"] && c["status"] == "True");
    let gates = if total == 0 { NONE.to_owned() } else { format!("{}/{total}", gates().filter(|gate| is_true(gate)).count()) };
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        summary.restarts.into(),
        age(pod),
        or_none(&pod["status"]["podIP"]),
        or_none(&pod["spec"]["nodeName"]),
        or_none(&pod["status"]["nominatedNodeName"]),
        gates.into(),
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: String,
}

#[derive(Default)]
struct Restarts {
    count: i64,
    /// Time of the last restart, as text: RFC 3339 in UTC sorts by time.
    last: String,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += number(&container["restartCount"]);
        let ended = container["lastState"]["terminated"]["finishedAt"].as_str().unwrap_or_default();
        if ended > self.last.as_str() {
            ended.clone_into(&mut self.last);
        }
    }

    fn text(&self) -> String {
        let last = Value::from(self.last.as_str());
        if self.count == 0 || moment(&last).is_none() {
            return self.count.to_string();
        }
        format!("{} ({} ago)", self.count, since(&last))
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let phase = status["phase"].as_str().unwrap_or_default();
        let condition = |wanted: &str| list(&status["conditions"]).find(|c| c["type"] == wanted);
        let mut reason = status["reason"].as_str().filter(|r| !r.is_empty()).unwrap_or(phase).to_owned();
        if condition("PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
            reason = "SchedulingGated".to_owned();
        }
        let is_sidecar = |name: &Value| list(&spec["initContainers"]).any(|c| c["name"] == *name && c["restartPolicy"] == "Always");
        let sidecars = list(&spec["initContainers"]).filter(|c| c["restartPolicy"] == "Always").count();
        let total = list(&spec["containers"]).count() + sidecars;
        let init_total = list(&spec["initContainers"]).count();

        let (mut ready, mut restarts, mut sidecar_restarts) = (0, Restarts::default(), Restarts::default());
        let mut initializing = false;
        for (index, container) in list(&status["initContainerStatuses"]).enumerate() {
            restarts.add(container);
            let sidecar = is_sidecar(&container["name"]);
            if sidecar {
                sidecar_restarts.add(container);
            }
            let state = &container["state"];
            if state["terminated"].is_object() && number(&state["terminated"]["exitCode"]) == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                ready += usize::from(container["ready"] == true);
                continue;
            }
            let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
            reason = if state["terminated"].is_object() {
                format!("Init:{}", ended(&state["terminated"]))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{init_total}")
            };
            initializing = true;
            break;
        }

        if !initializing || condition("Initialized").is_some_and(|c| c["status"] == "True") {
            restarts = sidecar_restarts;
            let mut running = false;
            let statuses: Vec<&Value> = list(&status["containerStatuses"]).collect();
            for container in statuses.iter().rev() {
                restarts.add(container);
                let state = &container["state"];
                let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
                if !waiting.is_empty() {
                    waiting.clone_into(&mut reason);
                } else if state["terminated"].is_object() {
                    reason = ended(&state["terminated"]);
                } else if container["ready"] == true && state["running"].is_object() {
                    running = true;
                    ready += 1;
                }
            }
            if reason == "Completed" && running {
                let is_ready = condition("Ready").is_some_and(|c| c["status"] == "True");
                reason = if is_ready { "Running" } else { "NotReady" }.to_owned();
            }
        }
        if pod["metadata"]["deletionTimestamp"].is_string() {
            if status["reason"] == "NodeLost" {
                reason = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                reason = "Terminating".to_owned();
            }
        }
        Self { ready, total, status: reason, restarts: restarts.text() }
    }
}

/// Why a container ended: the reason, else its signal or exit code.
fn ended(terminated: &Value) -> String {
    match (terminated["reason"].as_str().unwrap_or_default(), number(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", number(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(spec: Value, status: Value, deleted: bool) -> (String, String) {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let cells = super::pod(&pod);
        (cells[1].as_str().unwrap().to_owned(), cells[2].as_str().unwrap().to_owned())
    }

    #[test]
    fn the_status_word_is_the_one_kubectl_shows() {
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let running = json!({"name": "a", "ready": true, "state": {"running": {}}});
        let phase = |statuses: Value| json!({"phase": "Running", "containerStatuses": statuses});
        let s = |ready: &str, status: &str| (ready.to_owned(), status.to_owned());
        assert_eq!(shown(two.clone(), json!({"phase": "Pending"}), false), s("0/2", "Pending"));
        assert_eq!(shown(two.clone(), phase(json!([running])), false), s("1/2", "Running"));
        let crash = json!({"name": "b", "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        assert_eq!(shown(two.clone(), phase(json!([running, crash])), false), s("1/2", "CrashLoopBackOff"));
        let killed = json!({"name": "b", "state": {"terminated": {"exitCode": 137, "signal": 9}}});
        assert_eq!(shown(two.clone(), phase(json!([running, killed])), false), s("1/2", "Signal:9"));
        let done = json!({"name": "b", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        assert_eq!(shown(two.clone(), phase(json!([done, running])), false), s("1/2", "NotReady"));
        assert_eq!(shown(two, phase(json!([running])), true), s("1/2", "Terminating"));
    }

    #[test]
    fn init_containers_and_sidecars_are_counted_as_in_kubernetes() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        let s = |ready: &str, status: &str| (ready.to_owned(), status.to_owned());
        let waiting = json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]});
        assert_eq!(shown(spec.clone(), waiting, false), s("0/2", "Init:0/2"));
        let failed = json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]});
        assert_eq!(shown(spec.clone(), failed, false), s("0/2", "Init:Error"));
        let up = json!({"phase": "Running",
            "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]});
        assert_eq!(shown(spec, up, false), s("2/2", "Running"));
    }
}
