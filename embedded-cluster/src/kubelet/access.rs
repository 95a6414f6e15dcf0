//! Logs, exec, attach and port-forward: finds the node that runs the pod, and the container in it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::interface::{AccessError, ContainerTarget, ContainerUsage, LogOptions, PodAccess};
use super::logs;
use super::node::Kubelet;
use super::worker::{Message, Seen, log_path};
use crate::controllers::objects::Objects;
use crate::controllers::pods::{is_finished, phase};
use crate::runtime::{ContainerId, ExecProcess, ExecSpec, RuntimeError};
use crate::store::Store;

/// Where a kubelet listens for the API server.
const KUBELET_PORT: u16 = 10250;
/// How the API server begins its complaint when it cannot reach a kubelet for exec, attach or port-forward.
const BACKEND: &str = "error dialing backend: ";
/// kube-apiserver waits 30 s; nobody in a lab would.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// The pods of all nodes, as the API server reaches them through their kubelets.
pub struct ClusterPods {
    pods: Objects<Pod>,
    kubelets: Vec<Arc<Kubelet>>,
}

/// A container that was asked for, and where it is.
struct Found {
    kubelet: Arc<Kubelet>,
    pod: Arc<Pod>,
    container: Seen,
}

impl ClusterPods {
    pub fn new(store: &Store, kubelets: Vec<Arc<Kubelet>>) -> Self {
        Self { pods: Objects::new(store), kubelets }
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, AccessError> {
        self.pods.get(namespace, name).ok_or_else(|| AccessError::NotFound(format!("pods \"{name}\" not found")))
    }

    fn kubelet(&self, pod: &Pod) -> Result<Arc<Kubelet>, AccessError> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        if node.is_empty() {
            return Err(AccessError::BadRequest(format!("pod {name} does not have a host assigned")));
        }
        let kubelet = self.kubelets.iter().find(|kubelet| kubelet.node.name == node);
        kubelet.cloned().ok_or_else(|| AccessError::Internal(format!("no kubelet runs on node \"{node}\"")))
    }

    /// The API server's own connection to the kubelet would take the same link the other way.
    async fn dial(&self, kubelet: &Kubelet, context: &str) -> Result<(), AccessError> {
        if kubelet.link.answers_within(DIAL_TIMEOUT).await {
            return Ok(());
        }
        let address = kubelet.node.address;
        Err(AccessError::Internal(format!("{context}dial tcp {address}:{KUBELET_PORT}: i/o timeout")))
    }

    async fn find(&self, target: &ContainerTarget) -> Result<Found, AccessError> {
        let pod = self.pod(&target.namespace, &target.pod)?;
        let wanted = container_name(&pod, target.container.as_deref())?;
        let kubelet = self.kubelet(&pod)?;
        let waiting =
            |why: &str| AccessError::BadRequest(format!("container \"{wanted}\" in pod \"{}\" is waiting to start: {why}", target.pod));
        let worker = kubelet.worker(pod.metadata.uid.as_deref().unwrap_or_default()).ok_or_else(|| waiting("ContainerCreating"))?;
        let (ask, answer) = oneshot::channel();
        let gone = |_| AccessError::NotFound(format!("pods \"{}\" not found", target.pod));
        worker.send(Message::Look(ask)).map_err(|_| gone(()))?;
        let containers = answer.await.map_err(|_| gone(()))?;
        match containers.into_iter().find(|c| c.name == wanted) {
            Some(container) => Ok(Found { kubelet, pod, container }),
            None => Err(waiting("ContainerCreating")),
        }
    }

    async fn running(&self, target: &ContainerTarget, verb: &str) -> Result<(Found, ContainerId), AccessError> {
        let found = self.find(target).await?;
        if is_finished(&found.pod) {
            let phase = phase(&found.pod);
            return Err(AccessError::BadRequest(format!("cannot {verb} a container in a completed pod; current phase is {phase}")));
        }
        match found.container.id.clone() {
            Some(id) => Ok((found, id)),
            None => Err(AccessError::Internal(format!("unable to upgrade connection: container not found (\"{}\")", found.container.name))),
        }
    }
}

/// The container asked for, or the one that can only be meant.
fn container_name(pod: &Pod, wanted: Option<&str>) -> Result<String, AccessError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let apps: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let ephemeral: Vec<&str> = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let by_annotation = pod.metadata.annotations.as_ref().and_then(|a| a.get("kubectl.kubernetes.io/default-container"));
    match wanted.or(by_annotation.map(String::as_str)).or(if apps.len() == 1 { apps.first().copied() } else { None }) {
        Some(wanted) if apps.contains(&wanted) || init.contains(&wanted) || ephemeral.contains(&wanted) => Ok(wanted.to_owned()),
        Some(wanted) => Err(AccessError::BadRequest(format!("container {wanted} is not valid for pod {name}"))),
        None => {
            let init = if init.is_empty() { String::new() } else { format!(" or one of the init containers: [{}]", init.join(" ")) };
            Err(AccessError::BadRequest(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]{init}",
                apps.join(" ")
            )))
        }
    }
}

fn runtime_error(error: RuntimeError) -> AccessError {
    match error {
        RuntimeError::NotFound(what) => AccessError::NotFound(what),
        other => AccessError::Internal(other.to_string()),
    }
}

#[async_trait]
impl PodAccess for ClusterPods {
    async fn logs(
        &self,
        target: &ContainerTarget,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, AccessError> {
        // A pod that waits for a node has said nothing yet: kube-apiserver answers with an empty log, where exec is refused.
        let unscheduled = self.pod(&target.namespace, &target.pod)?;
        if unscheduled.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_none_or(str::is_empty) {
            container_name(&unscheduled, target.container.as_deref())?;
            return Ok(Box::pin(futures::stream::empty()));
        }
        let Found { kubelet, pod, container } = self.find(target).await?;
        let (namespace, name, address) = (&target.namespace, &target.pod, kubelet.node.address);
        let url = format!("https://{address}:{KUBELET_PORT}/containerLogs/{namespace}/{name}/{}", container.name);
        self.dial(&kubelet, &format!("Get \"{url}\": ")).await?;
        let attempt = if options.previous {
            container.previous.ok_or_else(|| {
                AccessError::BadRequest(format!("previous terminated container \"{}\" in pod \"{}\" not found", container.name, target.pod))
            })?
        } else {
            if let (Some(reason), false) = (&container.waiting, container.ever_started) {
                let why = match reason.as_str() {
                    "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image",
                    reason => reason,
                };
                return Err(AccessError::BadRequest(format!(
                    "container \"{}\" in pod \"{}\" is waiting to start: {why}",
                    container.name, target.pod
                )));
            }
            container.attempt
        };
        let path = log_path(&kubelet, &pod, &container.name, attempt);
        let ended = container.id.filter(|_| options.follow && !options.previous).map(|id| {
            let runtime = kubelet.runtime.clone();
            async move {
                let _ = runtime.wait_container(&id).await;
            }
            .boxed()
        });
        Ok(logs::stream(path, options.clone(), ended))
    }

    async fn exec(&self, target: &ContainerTarget, spec: ExecSpec) -> Result<ExecProcess, AccessError> {
        let (found, id) = self.running(target, "exec into").await?;
        self.dial(&found.kubelet, BACKEND).await?;
        found.kubelet.runtime.exec(&id, spec).await.map_err(runtime_error)
    }

    /// A container that was made for an attached client (`kubectl run -i`) may have ended before the client came: what
    /// it wrote is then shown from its log, so that nothing is lost however short its life.
    async fn attach(&self, target: &ContainerTarget, spec: ExecSpec) -> Result<ExecProcess, AccessError> {
        let found = self.find(target).await?;
        self.dial(&found.kubelet, BACKEND).await?;
        let finished = is_finished(&found.pod);
        if let Some(id) = found.container.id.as_ref().filter(|_| !finished) {
            match found.kubelet.runtime.attach(id, spec.stdin).await {
                Err(RuntimeError::NotFound(_)) if found.container.expects_client => {}
                attached => return attached.map_err(runtime_error),
            }
        }
        let Found { kubelet, pod, container } = found;
        if !container.expects_client || !container.ever_started {
            return Err(match finished {
                true => {
                    let phase = phase(&pod);
                    AccessError::BadRequest(format!("cannot attach a container in a completed pod; current phase is {phase}"))
                }
                false => AccessError::Internal(format!("container {} not found in pod {}", container.name, target.pod)),
            });
        }
        let path = log_path(&kubelet, &pod, &container.name, container.attempt);
        let (exited, exit) = oneshot::channel();
        let _ = exited.send(0);
        Ok(ExecProcess {
            stdin: spec.stdin.then(|| Box::new(tokio::io::sink()) as _),
            stdout: Some(Box::new(tokio_util::io::StreamReader::new(logs::stream(path, LogOptions::default(), None)))),
            stderr: None,
            resize: None,
            exit,
            guard: Box::new(()),
        })
    }

    async fn port_forward(&self, namespace: &str, pod: &str, port: u16) -> Result<TcpStream, AccessError> {
        let pod = self.pod(namespace, pod)?;
        if phase(&pod) != "Running" {
            return Err(AccessError::BadRequest(format!(
                "unable to forward port because pod is not running. Current status={}",
                phase(&pod)
            )));
        }
        let kubelet = self.kubelet(&pod)?;
        self.dial(&kubelet, BACKEND).await?;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        kubelet.runtime.dial_in_pod(uid, port).await.map_err(|error| {
            AccessError::Internal(format!(
                "failed to connect to localhost:{port} inside namespace \"{uid}\", IPv4: dial tcp4 127.0.0.1:{port}: {error}"
            ))
        })
    }

    async fn usage(&self, namespace: Option<&str>) -> Vec<ContainerUsage> {
        let mut all = Vec::new();
        for pod in self.pods.list(namespace).into_iter().filter(|pod| !is_finished(pod)) {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let uid = text(&pod.metadata.uid);
            let Some((kubelet, worker)) = self.kubelet(&pod).ok().and_then(|kubelet| kubelet.worker(&uid).map(|worker| (kubelet, worker)))
            else {
                continue;
            };
            let (ask, answer) = oneshot::channel();
            if worker.send(Message::Look(ask)).is_err() {
                continue;
            }
            for container in answer.await.unwrap_or_default() {
                let Some(id) = &container.id else { continue };
                // Ended meanwhile: then it uses nothing.
                let Ok((resident, cpu_nanoseconds)) = kubelet.runtime.usage(id).await else { continue };
                all.push(ContainerUsage {
                    namespace: text(&pod.metadata.namespace),
                    pod: text(&pod.metadata.name),
                    pod_uid: uid.clone(),
                    container: container.name,
                    resident,
                    cpu_nanoseconds,
                });
            }
        }
        all
    }
}
