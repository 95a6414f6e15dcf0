//! `metrics.k8s.io`, as metrics-server serves it: what containers use of CPU and memory, read from their processes when
//! somebody asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::read::Selection;
use super::respond::{self, Body, Form};
use super::router::Call;
use super::status::Refusal;
use super::{kinds, server::ApiState};
use crate::kubelet::ContainerUsage;
use crate::store::Resource;

pub(super) const GROUP: &str = "metrics.k8s.io";
pub(super) const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// An earlier reading is compared with when it is no older than this; else one is taken for the purpose.
const OLDEST: Duration = Duration::from_secs(60);
/// The least time between two readings: the kernel counts CPU time in steps of 10 ms.
const SHORTEST: Duration = Duration::from_millis(500);

/// When containers were looked at, and what they had used by then.
#[derive(Clone)]
struct Reading {
    at: Instant,
    usage: Arc<Vec<ContainerUsage>>,
}

/// The last reading, kept to compare the next one with. Costs nothing while nobody asks.
#[derive(Default)]
pub struct Metrics {
    last: Mutex<Option<Reading>>,
}

/// Use of one container over a while.
struct Rate {
    cpu_nanocores: u64,
    resident: u64,
}

struct Sample {
    window: Duration,
    /// By namespace and pod, then container.
    pods: BTreeMap<(String, String), BTreeMap<String, Rate>>,
}

async fn read(state: &ApiState) -> Reading {
    let usage = Arc::new(state.access.usage(None).await);
    Reading { at: Instant::now(), usage }
}

async fn sample(state: &ApiState) -> Sample {
    let kept = state.metrics.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let before = match kept.filter(|reading| reading.at.elapsed() < OLDEST) {
        Some(reading) => reading,
        None => read(state).await,
    };
    tokio::time::sleep(SHORTEST.saturating_sub(before.at.elapsed())).await;
    let after = read(state).await;
    *state.metrics.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(after.clone());
    compare(&before, &after)
}

fn compare(before: &Reading, after: &Reading) -> Sample {
    let key = |usage: &ContainerUsage| (usage.pod_uid.clone(), usage.container.clone());
    let earlier: BTreeMap<_, u64> = before.usage.iter().map(|usage| (key(usage), usage.cpu_nanoseconds)).collect();
    let window = after.at.duration_since(before.at).max(Duration::from_millis(1));
    let mut pods: BTreeMap<_, BTreeMap<String, Rate>> = BTreeMap::new();
    for usage in after.usage.iter() {
        // A container that was not there, or has been restarted, began from nothing.
        let since = earlier.get(&key(usage)).copied().filter(|since| *since <= usage.cpu_nanoseconds).unwrap_or(0);
        let used = u128::from(usage.cpu_nanoseconds - since);
        let cpu_nanocores = u64::try_from(used * 1_000_000_000 / window.as_nanos()).unwrap_or(u64::MAX);
        let rate = Rate { cpu_nanocores, resident: usage.resident };
        pods.entry((usage.namespace.clone(), usage.pod.clone())).or_default().insert(usage.container.clone(), rate);
    }
    Sample { window, pods }
}

fn usage(cpu_nanocores: u64, resident: u64) -> Value {
    json!({"cpu": format!("{cpu_nanocores}n"), "memory": format!("{}Ki", resident / 1024)})
}

fn measured(object: &Value, window: Duration) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut metadata = json!({"name": object["metadata"]["name"], "creationTimestamp": now});
    for field in ["namespace", "labels"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    json!({"metadata": metadata, "timestamp": now, "window": format!("{:.3}s", window.as_secs_f64())})
}

fn of_pod(pod: &Value, sample: &Sample) -> Option<Value> {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
    let containers = sample.pods.get(&(text("namespace"), text("name")))?;
    let mut metrics = measured(pod, sample.window);
    metrics["containers"] =
        containers.iter().map(|(name, rate)| json!({"name": name, "usage": usage(rate.cpu_nanocores, rate.resident)})).collect();
    Some(metrics)
}

/// A lab's node is its pods' processes: it has no others.
fn of_node(node: &Value, pods: &[Arc<Value>], sample: &Sample) -> Value {
    let mut sum = (0, 0);
    for pod in pods.iter().filter(|pod| pod["spec"]["nodeName"] == node["metadata"]["name"]) {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        for rate in sample.pods.get(&(text("namespace"), text("name"))).into_iter().flat_map(BTreeMap::values) {
            sum = (sum.0 + rate.cpu_nanocores, sum.1 + rate.resident);
        }
    }
    let mut metrics = measured(node, sample.window);
    metrics["usage"] = usage(sum.0, sum.1);
    metrics
}

pub(super) async fn answer(call: &Call, path: &[&str]) -> Result<Response<Body>, Refusal> {
    if call.method != Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    let (plural, namespace, name) = match *path {
        ["nodes"] => ("nodes", None, None),
        ["nodes", name] => ("nodes", None, Some(name)),
        ["pods"] => ("pods", None, None),
        ["namespaces", namespace, "pods"] => ("pods", Some(namespace), None),
        ["namespaces", namespace, "pods", name] => ("pods", Some(namespace), Some(name)),
        _ => return Err(Refusal::no_such_resource()),
    };
    let kind = kinds::builtin("", "v1", plural).ok_or_else(Refusal::no_such_resource)?;
    let selection = Selection::of(call, &kind)?;
    let sample = sample(&call.state).await;
    let store = &call.state.store;
    let pods = store.list(&Resource::of::<Pod>(), None).items;
    let listed = store.list(&kind.storage, namespace).items;
    let about = |object: &Arc<Value>| match plural {
        "nodes" => Some(of_node(object, &pods, &sample)),
        _ => of_pod(object, &sample),
    };
    let singular = if plural == "nodes" { "NodeMetrics" } else { "PodMetrics" };
    let complete = |mut metrics: Value| {
        metrics["kind"] = singular.into();
        metrics["apiVersion"] = API_VERSION.into();
        metrics
    };
    if let Some(name) = name {
        let found = listed.iter().find(|object| object["metadata"]["name"] == name).and_then(about).map(complete);
        let what = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
        let missing = || Refusal::new(404, "NotFound", format!("{}.{GROUP} \"{what}\" not found", singular.to_lowercase()));
        return Ok(respond::json(StatusCode::OK, &found.ok_or_else(missing)?));
    }
    let items: Vec<Value> = listed.iter().filter(|object| selection.matches(object)).filter_map(about).map(complete).collect();
    if respond::form(&call.headers)? == Form::Table {
        return Ok(respond::json(StatusCode::OK, &table(&items)));
    }
    let list = json!({"kind": format!("{singular}List"), "apiVersion": API_VERSION, "metadata": {}, "items": items});
    Ok(respond::json(StatusCode::OK, &list))
}

/// metrics-server's columns.
fn table(items: &[Value]) -> Value {
    let column = |name: &str| json!({"name": name, "type": "string", "format": "", "description": "", "priority": 0});
    let rows: Vec<Value> = items
        .iter()
        .map(|item| {
            let parts: Vec<&Value> = match item["containers"].as_array() {
                Some(containers) => containers.iter().map(|container| &container["usage"]).collect(),
                None => vec![&item["usage"]],
            };
            let sum = |field: &str, unit: &str| -> u64 {
                parts.iter().filter_map(|part| part[field].as_str()?.strip_suffix(unit)?.parse::<u64>().ok()).sum()
            };
            let (cpu, memory) = (format!("{}n", sum("cpu", "n")), format!("{}Ki", sum("memory", "Ki")));
            let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]});
            json!({"cells": [item["metadata"]["name"], cpu, memory, item["window"]], "object": partial})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": [column("Name"), column("cpu"), column("memory"), column("Window")], "rows": rows})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time_and_restarts_begin_anew() {
        let of = |container: &str, cpu_nanoseconds| ContainerUsage {
            namespace: "n".to_owned(),
            pod: "p".to_owned(),
            pod_uid: "u".to_owned(),
            container: container.to_owned(),
            resident: 2048,
            cpu_nanoseconds,
        };
        let at = Instant::now();
        let before = Reading { at, usage: Arc::new(vec![of("steady", 1_000_000_000), of("restarted", 9_000_000_000)]) };
        let after = Reading {
            at: at + Duration::from_secs(2),
            usage: Arc::new(vec![of("steady", 2_000_000_000), of("restarted", 500_000_000), of("new", 20_000_000)]),
        };
        let sample = compare(&before, &after);
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}}});
        let metrics = of_pod(&pod, &sample).unwrap();
        assert_eq!(
            metrics["containers"],
            json!([
                {"name": "new", "usage": {"cpu": "10000000n", "memory": "2Ki"}},
                {"name": "restarted", "usage": {"cpu": "250000000n", "memory": "2Ki"}},
                {"name": "steady", "usage": {"cpu": "500000000n", "memory": "2Ki"}},
            ])
        );
        assert_eq!(metrics["metadata"]["labels"]["a"], "b");
        assert!(of_pod(&json!({"metadata": {"name": "other", "namespace": "n"}}), &sample).is_none(), "nothing runs");
    }
}
