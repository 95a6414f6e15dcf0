//! The application's journals: asked for in pods that live, and kept from the logs of pods that are gone by now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake_backends::journal::Entry;
use futures::future::join_all;
use futures::{AsyncBufReadExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::kubernetes::rollout::terminating;
use crate::kubernetes::{ExecTarget, Kubernetes};
use crate::run::mirror::{Mirror, Snapshot};
use crate::run::probing::Senders;
use crate::signature::JournalRecord;

/// Bound of the log of one container that has ended.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// One version of one entry, by what names it: the pod and the entry's own numbers.
type Kept = BTreeMap<(String, bool, u64), Entry>;

/// Follows the logs of application pods, so that nothing is lost with a pod.
pub struct JournalKeeper {
    kept: Arc<Mutex<Kept>>,
    /// Pod, container id, and whether it was over when its log was asked for.
    followed: BTreeSet<(String, String, bool)>,
    tasks: JoinSet<()>,
}

impl Default for JournalKeeper {
    fn default() -> Self {
        JournalKeeper { kept: Arc::default(), followed: BTreeSet::new(), tasks: JoinSet::new() }
    }
}

impl JournalKeeper {
    /// Follows every backend container that runs and is not followed yet; to be called whenever pods have changed.
    pub fn follow_new(&mut self, kubernetes: &Kubernetes, snapshot: &Snapshot, namespaces: &BTreeSet<String>) {
        for pod in snapshot.of_kind("Pod", None) {
            let Some(target) = backend_container(pod).filter(|target| namespaces.contains(&target.namespace)) else { continue };
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            // A container that crashes at once may be over before it is seen running, or before its log is asked for.
            let runs = [(running_id(pod, target.container.as_deref()), false), (ended_id(pod, target.container.as_deref()), true)];
            for (id, previous) in runs {
                let Some(id) = id else { continue };
                if self.followed.insert((uid.to_owned(), id, previous)) {
                    self.tasks.spawn(read_log(kubernetes.client().clone(), target.clone(), previous, Arc::clone(&self.kept)));
                }
            }
        }
    }

    /// Entries since a time, of all pods there were; living ones are asked, so that what is still in flight is there too.
    /// Returns what could not be read as well.
    pub async fn entries(
        &self,
        kubernetes: &Kubernetes,
        senders: &Senders,
        snapshot: &Snapshot,
        namespaces: &BTreeSet<String>,
        since: Timestamp,
    ) -> (Vec<JournalRecord>, Vec<String>) {
        let living: Vec<ExecTarget> = snapshot
            .of_kind("Pod", None)
            .filter_map(backend_container_running)
            .filter(|target| namespaces.contains(&target.namespace))
            .collect();
        let ask =
            |target| async move { senders.journal(target, since).await.map(|page| (target, page)).map_err(|error| error.to_string()) };
        let answers = join_all(living.iter().map(ask)).await;
        let crashed = snapshot.of_kind("Pod", None).filter_map(|pod| {
            let target = backend_container(pod).filter(|target| namespaces.contains(&target.namespace))?;
            ended_id(pod, target.container.as_deref())?;
            Some(tokio::time::timeout(ANSWER_WITHIN, read_log(kubernetes.client().clone(), target, true, Arc::clone(&self.kept))))
        });
        join_all(crashed).await;
        let mut all = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let mut troubles = Vec::new();
        for answer in answers {
            match answer {
                Ok((target, page)) => page.entries.into_iter().for_each(|entry| keep(&mut all, &target.pod, entry)),
                Err(trouble) => troubles.push(trouble),
            }
        }
        let mut records: Vec<JournalRecord> =
            all.into_iter().filter(|(_, entry)| entry.time() >= since).map(|((pod, _, _), entry)| convert(pod, &entry)).collect();
        records.sort_by_key(|record| record.at);
        (records, troubles)
    }
}

/// Takes what the log of a container says, to its end; `previous`: of the one that ended last.
async fn read_log(client: Client, target: ExecTarget, previous: bool, kept: Arc<Mutex<Kept>>) {
    let api: Api<Pod> = Api::namespaced(client, &target.namespace);
    let params = LogParams { container: target.container.clone(), follow: !previous, previous, ..LogParams::default() };
    let Ok(log) = api.log_stream(&target.pod, &params).await else { return };
    let mut lines = log.lines();
    while let Ok(Some(line)) = lines.try_next().await {
        if let Ok(entry) = serde_json::from_str::<Entry>(&line) {
            keep(&mut kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner), &target.pod, entry);
        }
    }
}

/// Later versions of an entry replace earlier ones.
fn keep(kept: &mut Kept, pod: &str, entry: Entry) {
    let key = match &entry {
        Entry::Connection(connection) => (pod.to_owned(), false, connection.connection),
        Entry::Request(request) => (pod.to_owned(), true, request.request),
    };
    match kept.get(&key) {
        // A restarted process counts from 1 again; its entries are told apart by their time.
        Some(held) if held.time() == entry.time() && held.seq() >= entry.seq() => {}
        Some(held) if held.time() != entry.time() => {
            let restarted = (format!("{pod} (restarted {})", entry.time()), key.1, key.2);
            kept.insert(restarted, entry);
        }
        _ => {
            kept.insert(key, entry);
        }
    }
}

fn convert(pod: String, entry: &Entry) -> JournalRecord {
    let value = serde_json::to_value(entry).unwrap_or(Value::Null);
    // The journal writes snake_case, scenarios kebab-case.
    let ended = value["ended"].as_str().unwrap_or("open").replace('_', "-");
    let pod = pod.split(' ').next().unwrap_or_default().to_owned();
    match entry {
        Entry::Connection(connection) => JournalRecord {
            pod,
            at: Some(connection.time),
            request_id: None,
            connection_id: Some(connection.connection.to_string()),
            ended,
            status: None,
            entry: value,
        },
        Entry::Request(request) => JournalRecord {
            pod,
            at: Some(request.time),
            request_id: request.request_id.as_deref().and_then(|id| id.parse().ok()),
            connection_id: Some(request.connection.to_string()),
            ended,
            status: request.status,
            entry: value,
        },
    }
}

/// The container of a pod that runs `gatelab backend`.
fn backend_container(pod: &Value) -> Option<ExecTarget> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
    let backend = containers.iter().find(|container| {
        let words = |field: &str| container[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let command: Vec<String> = words("command");
        let args: Vec<String> = words("args");
        command.iter().chain(&args).any(|word| word == "backend")
    })?;
    Some(ExecTarget {
        namespace: pod["metadata"]["namespace"].as_str()?.to_owned(),
        pod: pod["metadata"]["name"].as_str()?.to_owned(),
        container: backend["name"].as_str().map(str::to_owned),
    })
}

fn backend_container_running(pod: &Value) -> Option<ExecTarget> {
    let target = backend_container(pod)?;
    running_id(pod, target.container.as_deref())?;
    (!terminating(pod)).then_some(target)
}

/// Id of the container when it runs.
fn running_id(pod: &Value, container: Option<&str>) -> Option<String> {
    let status = container_status(pod, container).filter(|status| !status["state"]["running"].is_null())?;
    status["containerID"].as_str().map(str::to_owned)
}

/// Id of the container that ended last, which `kubectl logs --previous` reads.
fn ended_id(pod: &Value, container: Option<&str>) -> Option<String> {
    container_status(pod, container)?.pointer("/lastState/terminated/containerID")?.as_str().map(str::to_owned)
}

fn container_status<'a>(pod: &'a Value, container: Option<&str>) -> Option<&'a Value> {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array)?;
    statuses.iter().find(|status| status["name"].as_str() == container)
}

/// Keeps following new pods while something else runs.
pub async fn following<T>(
    keeper: &mut JournalKeeper,
    kubernetes: &Kubernetes,
    mirror: &Mirror,
    namespaces: &BTreeSet<String>,
    work: impl Future<Output = T>,
) -> T {
    let mut changes = mirror.changes();
    let mut work = std::pin::pin!(work);
    loop {
        keeper.follow_new(kubernetes, &mirror.snapshot(), namespaces);
        tokio::select! {
            result = &mut work => return result,
            Ok(()) = changes.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(number: u64, seq: u64, time: &str, ended: Option<&str>) -> Entry {
        serde_json::from_value(json!({ "kind": "request", "seq": seq, "time": time, "request": number, "connection": 1, "number": 1,
            "request_id": "8c1f7bd8-97a4-4b55-8e33-1f8cf2a7b0a1", "method": "GET", "path": "/", "protocol": "HTTP/1.1", "status": 200,
            "bytes_in": 0, "bytes_out": 2, "ended": ended, "duration_ms": null }))
        .unwrap()
    }

    #[test]
    fn the_latest_version_of_an_entry_counts_and_a_restart_starts_anew() {
        let mut kept = Kept::new();
        keep(&mut kept, "shop-a", request(1, 4, "2026-11-21T04:00:00Z", Some("completed")));
        keep(&mut kept, "shop-a", request(1, 2, "2026-11-21T04:00:00Z", None));
        keep(&mut kept, "shop-a", request(1, 2, "2026-11-21T04:00:09Z", None));
        let ended: Vec<_> =
            kept.iter().map(|((pod, _, _), entry)| convert(pod.clone(), entry)).map(|record| (record.pod, record.ended)).collect();
        assert_eq!(ended, [("shop-a".to_owned(), "completed".to_owned()), ("shop-a".to_owned(), "open".to_owned())]);
    }

    #[test]
    fn only_the_backend_of_a_pod_is_asked() {
        let pod = json!({ "metadata": { "namespace": "shop", "name": "shop-a" }, "spec": { "containers": [
            { "name": "proxy", "command": ["/gatelab", "sidecar"] }, { "name": "shop", "command": ["/gatelab"], "args": ["backend"] }] },
            "status": { "containerStatuses": [{ "name": "shop", "containerID": "x://1", "state": { "running": {} } }] } });
        assert_eq!(backend_container_running(&pod).unwrap().container.as_deref(), Some("shop"));
    }

    #[test]
    fn a_container_that_waits_to_be_started_again_has_a_log_to_read() {
        let pod = json!({ "status": { "containerStatuses": [{ "name": "shop", "containerID": "x://2",
            "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": { "terminated": { "containerID": "x://2" } } }] } });
        assert_eq!(running_id(&pod, Some("shop")), None);
        assert_eq!(ended_id(&pod, Some("shop")).as_deref(), Some("x://2"));
        assert_eq!(ended_id(&pod, Some("proxy")), None);
    }
}
