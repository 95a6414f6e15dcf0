//! Whether the gateway's running configuration shows the objects as they are now: its agent says which resourceVersions the
//! running configuration was made from, and they are compared with the live objects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{join_all, select_all};
use gateways::{GATEWAY_NAMESPACE, SETTINGS_CONFIG_MAP};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::mirror::{Key, Mirror, Snapshot};
use crate::kubernetes::rollout::{pod_ready, terminating};
use crate::kubernetes::{ExecTarget, Kubernetes, KubernetesError, Running};

/// Bound of an agent's first answer, and pause before one that cannot be asked is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Bound of the end of the process that told it.
const LEFT_WITHIN: Duration = Duration::from_secs(1);
const COMMAND: [&str; 4] = ["/gatelab", "gateway-agent", "status", "--follow"];

/// A line of `gatelab gateway-agent status --follow`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AgentStatus {
    #[serde(default)]
    pub gateway: String,
    #[serde(default)]
    pub version: String,
    /// `EndpointSlice/shop/shop-x` -> resourceVersion.
    #[serde(default)]
    pub applied: BTreeMap<String, String>,
    #[serde(default)]
    pub last_error: Option<Value>,
}

/// Pods of the gateway that are to answer requests.
pub fn gateway_pods(snapshot: &Snapshot) -> Vec<ExecTarget> {
    snapshot
        .of_kind("Pod", Some(GATEWAY_NAMESPACE))
        .filter(|pod| !terminating(pod) && pod_ready(pod))
        .filter_map(|pod| pod["metadata"]["name"].as_str())
        .map(|pod| ExecTarget { namespace: GATEWAY_NAMESPACE.into(), pod: pod.into(), container: Some("controller".into()) })
        .collect()
}

/// What an agent tells for as long as somebody waits for it: one process in its pod, not one for each question.
struct Told {
    running: Running,
    newest: AgentStatus,
}

impl Told {
    async fn by(kubernetes: &Kubernetes, pod: &ExecTarget) -> Result<Self, KubernetesError> {
        let mut running = kubernetes.start(pod, &COMMAND).await?;
        let first = tokio::time::timeout(ANSWER_WITHIN, running.next_line()).await.map_err(|_| KubernetesError::NotReached {
            what: format!("the status of the agent in {pod}"),
            waited: ANSWER_WITHIN,
            last: "it said nothing".into(),
        })??;
        match first {
            Some(line) => Ok(Told { newest: read(pod, &line)?, running }),
            None => Err(ended(pod, running).await),
        }
    }

    /// Returns at the next line. Safe to cancel.
    async fn changed(&mut self, pod: &ExecTarget) -> Result<(), KubernetesError> {
        match self.running.next_line().await? {
            Some(line) => self.newest = read(pod, &line)?,
            None => return Err(failed(pod, "it ended".into())),
        }
        Ok(())
    }

    /// Not every container runtime ends what runs for a connection with it.
    async fn leave(mut self) {
        if self.running.write_line("").await.is_ok() {
            let _ = tokio::time::timeout(LEFT_WITHIN, self.running.finish()).await;
        }
    }
}

fn read(pod: &ExecTarget, line: &str) -> Result<AgentStatus, KubernetesError> {
    serde_json::from_str(line).map_err(|error| failed(pod, format!("its output is no status: {error}: {line}")))
}

async fn ended(pod: &ExecTarget, running: Running) -> KubernetesError {
    match tokio::time::timeout(ANSWER_WITHIN, running.finish()).await {
        Ok(Ok((code, said))) => failed(pod, format!("exit code {code}: {}", said.trim())),
        Ok(Err(error)) => error,
        Err(_) => failed(pod, "it closed its output and still ran".into()),
    }
}

fn failed(pod: &ExecTarget, detail: String) -> KubernetesError {
    KubernetesError::Exec { command: COMMAND.join(" "), pod: pod.to_string(), detail }
}

/// Waits until every gateway pod runs a configuration made from the live objects.
pub async fn wait(kubernetes: &Kubernetes, mirror: &Mirror, within: Duration) -> Result<(), KubernetesError> {
    let deadline = Instant::now() + within;
    let mut changes = mirror.changes();
    let mut told: BTreeMap<String, (ExecTarget, Told)> = BTreeMap::new();
    loop {
        // What comes from here on is looked at in the next round.
        changes.mark_unchanged();
        let snapshot = mirror.snapshot();
        let pods = gateway_pods(&snapshot);
        told.retain(|name, _| pods.iter().any(|pod| pod.to_string() == *name));
        let mut behind = if pods.is_empty() { Some("no gateway pod is ready".to_owned()) } else { None };
        let mut asked_in_vain = false;
        for pod in pods {
            let name = pod.to_string();
            if !told.contains_key(&name) {
                match Told::by(kubernetes, &pod).await {
                    Ok(one) => drop(told.insert(name.clone(), (pod, one))),
                    Err(error) => {
                        asked_in_vain = true;
                        behind = Some(error.to_string());
                        continue;
                    }
                }
            }
            let newest = told.get(&name).map(|(_, one)| &one.newest);
            // The gateway follows the whole cluster, also where the lab is one of its guests.
            if let Some(reason) = newest.and_then(|status| difference(&snapshot, status, |namespace| mirror.sees(namespace))) {
                behind = Some(reason);
            }
        }
        let Some(last) = behind else {
            join_all(told.into_values().map(|(_, one)| one.leave())).await;
            return Ok(());
        };
        if Instant::now() >= deadline {
            let what = "a gateway configuration that shows the objects as they are".into();
            return Err(KubernetesError::NotReached { what, waited: within, last });
        }
        let next_line = async {
            if told.is_empty() {
                std::future::pending::<()>().await;
            }
            let lines = told.iter_mut().map(|(name, (pod, one))| Box::pin(async move { (name.clone(), one.changed(pod).await) }));
            let ((name, line), ..) = select_all(lines).await;
            if line.is_err() {
                // The container may have been started again: asked anew.
                told.remove(&name);
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let again = if asked_in_vain { deadline.min(Instant::now() + ASK_AGAIN) } else { deadline };
        tokio::select! {
            Ok(()) = changes.changed() => {}
            () = next_line => {}
            () = tokio::time::sleep_until(again) => {}
        }
    }
}

/// Of `EndpointSlice/shop/shop-x`.
fn namespace_of(name: &str) -> Option<&str> {
    let mut parts = name.split('/').skip(1);
    let namespace = parts.next()?;
    parts.next().map(|_| namespace)
}

/// The first object whose live version the running configuration does not show.
/// `sees`: whether a namespace is looked at at all.
pub fn difference(snapshot: &Snapshot, status: &AgentStatus, sees: impl Fn(&str) -> bool) -> Option<String> {
    let live: BTreeMap<String, &str> =
        snapshot.all().filter_map(|(key, object)| Some((name_of(key), object.pointer("/metadata/resourceVersion")?.as_str()?))).collect();
    for (name, applied) in status.applied.iter().filter(|(name, _)| namespace_of(name).is_none_or(&sees)) {
        match live.get(name) {
            Some(version) if version == applied => {}
            Some(version) => {
                return Some(format!("{name} is at resourceVersion {version}, the gateway shows {applied}{}", trouble(status)));
            }
            None => return Some(format!("{name} is gone, the gateway still shows it{}", trouble(status))),
        }
    }
    let missing = wanted(snapshot).into_iter().find(|name| live.contains_key(name) && !status.applied.contains_key(name));
    missing.map(|name| format!("{name} is not in the gateway's configuration yet{}", trouble(status)))
}

/// As the agent writes it: `Service/shop/shop`, `IngressClass/gateway`.
fn name_of((kind, namespace, name): &Key) -> String {
    if namespace.is_empty() { format!("{kind}/{name}") } else { format!("{kind}/{namespace}/{name}") }
}

fn trouble(status: &AgentStatus) -> String {
    match &status.last_error {
        Some(error) if !error.is_null() => format!(" (its last error: {error})"),
        _ => String::new(),
    }
}

/// What routes depend on: Ingresses, the Services they name, those Services' EndpointSlices, the gateway's settings.
fn wanted(snapshot: &Snapshot) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut names = BTreeSet::from([format!("ConfigMap/{GATEWAY_NAMESPACE}/{SETTINGS_CONFIG_MAP}")]);
    let mut services = BTreeSet::new();
    for ingress in snapshot.of_kind("Ingress", None) {
        let namespace = text(&ingress["metadata"]["namespace"]);
        names.insert(format!("Ingress/{namespace}/{}", text(&ingress["metadata"]["name"])));
        services.extend(backends(ingress).map(|service| (namespace.clone(), service.to_owned())));
    }
    for (namespace, service) in &services {
        names.insert(format!("Service/{namespace}/{service}"));
    }
    for slice in snapshot.of_kind("EndpointSlice", None) {
        let namespace = text(&slice["metadata"]["namespace"]);
        let service = text(&slice["metadata"]["labels"]["kubernetes.io/service-name"]);
        if services.contains(&(namespace.clone(), service)) {
            names.insert(format!("EndpointSlice/{namespace}/{}", text(&slice["metadata"]["name"])));
        }
    }
    names
}

/// Services that an Ingress sends to.
pub fn backends(ingress: &Value) -> impl Iterator<Item = &str> {
    let paths = ingress.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten();
    let backends = paths.filter_map(|rule| rule.pointer("/http/paths").and_then(Value::as_array)).flatten().map(|path| &path["backend"]);
    std::iter::once(&ingress["spec"]["defaultBackend"]).chain(backends).filter_map(|backend| backend.pointer("/service/name")?.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, namespace: &str, name: &str, version: &str) -> Value {
        json!({ "kind": kind, "metadata": { "namespace": namespace, "name": name, "resourceVersion": version } })
    }

    fn world() -> Snapshot {
        let mut ingress = object("Ingress", "shop", "shop", "3");
        ingress["spec"] = json!({ "rules": [{ "http": { "paths": [{ "backend": { "service": { "name": "shop" } } }] } }] });
        let mut slice = object("EndpointSlice", "shop", "shop-1", "5");
        slice["metadata"]["labels"] = json!({ "kubernetes.io/service-name": "shop" });
        let class = json!({ "kind": "IngressClass", "metadata": { "name": "gateway", "resourceVersion": "1" } });
        let settings = object("ConfigMap", "gateway", "gateway-settings", "2");
        Snapshot::from_objects([ingress, slice, object("Service", "shop", "shop", "4"), settings, class])
    }

    fn status(changes: &[(&str, Option<&str>)]) -> AgentStatus {
        let mut applied: BTreeMap<String, String> = [
            ("Ingress/shop/shop", "3"),
            ("EndpointSlice/shop/shop-1", "5"),
            ("Service/shop/shop", "4"),
            ("ConfigMap/gateway/gateway-settings", "2"),
            ("IngressClass/gateway", "1"),
        ]
        .into_iter()
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect();
        for (name, version) in changes {
            match version {
                Some(version) => applied.insert((*name).to_owned(), (*version).to_owned()),
                None => applied.remove(*name),
            };
        }
        AgentStatus { applied, ..AgentStatus::default() }
    }

    #[test]
    fn in_sync_only_when_every_version_is_the_live_one() {
        assert_eq!(difference(&world(), &status(&[]), |_| true), None);
        assert!(difference(&world(), &status(&[("EndpointSlice/shop/shop-1", Some("4"))]), |_| true).unwrap().contains("EndpointSlice"));
        assert!(difference(&world(), &status(&[("EndpointSlice/shop/shop-1", None)]), |_| true).unwrap().contains("not in the gateway's"));
        assert!(difference(&world(), &status(&[("Service/shop/old", Some("1"))]), |_| true).unwrap().contains("is gone"));
        assert!(difference(&world(), &status(&[("IngressClass/gateway", Some("9"))]), |_| true).unwrap().contains("IngressClass"));
    }
}
