//! A cluster with everything in it that a scenario needs: gateway, application, client.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gateways::{GATEWAY_NAMESPACE, GatewayBuild, GatewayInstall, GatewayKind};
use serde_json::{Value, json};

use super::emit::Emitter;
use super::mirror::Mirror;
use super::probing::{CLIENT_NAMESPACE, CLIENT_POD, Senders};
use super::single::RunError;
use super::{change, settle};
use crate::events::EventKind;
use crate::kubernetes::{Kubernetes, KubernetesError};
use crate::provider::named_image;
use crate::provider::{ClusterHandle, ClusterRequest, ClusterSetting, HostPorts, LabImage, Lifetime, Provider};
use crate::scenario::Plan;
use crate::scenario::plan::{PlannedChange, PlannedSettle};
use crate::signature::Phase;

/// Bound of the time until a cluster is up.
const CLUSTER_WITHIN: Duration = Duration::from_secs(60);
/// Bound of the first list of all objects.
const LIST_WITHIN: Duration = Duration::from_secs(30);
/// Service of the gateway; its ports are called `http` and `https`.
pub const GATEWAY_SERVICE: &str = "gateway";
/// Annotation of the Service: where this machine reaches it.
const HOST_ADDRESS: &str = "gatelab.dev/host-address";

/// What a lab is made of.
pub struct LabRequest<'a> {
    pub provider: &'a dyn Provider,
    /// Unique among this user's labs.
    pub name: String,
    pub plan: &'a Plan,
    pub gateway: &'a GatewayBuild,
    /// Every gateway at hand: applications may use one as a sidecar.
    pub builds: &'a [GatewayBuild],
    pub lifetime: Lifetime,
}

/// A running lab. Dropping it takes an attached cluster away.
pub struct Lab {
    pub kubernetes: Kubernetes,
    pub senders: Senders,
    pub mirror: Mirror,
    pub setting: ClusterSetting,
    pub namespaces: BTreeSet<String>,
    // Last: watches end before the cluster does.
    handle: Box<dyn ClusterHandle>,
}

/// How long the watches may take to tell of a change that the API server has answered.
const SEEN: Duration = Duration::from_secs(5);

impl Lab {
    /// Brings the cluster up and puts everything into it; the application is in its healthy state afterwards, but it has not
    /// been waited for.
    pub async fn create(request: &LabRequest<'_>, emit: &Emitter) -> Result<Self, RunError> {
        let begun = Instant::now();
        emit.step("cluster up");
        let cluster = ClusterRequest {
            name: request.name.clone(),
            nodes: request.plan.nodes,
            node_grace: request.plan.node_grace,
            images: images(request),
            lifetime: request.lifetime,
            within: CLUSTER_WITHIN,
        };
        let handle = request.provider.create(&cluster).await?;
        let kubernetes = connect(&*handle).await?;
        let namespaces = namespaces(request.plan);
        let (mirror, version) =
            tokio::try_join!(Mirror::start(&kubernetes, LIST_WITHIN, seen(&*handle, &namespaces)), kubernetes.version())?;
        let nodes = node_names(&mirror);
        emit.tell(EventKind::ClusterUp { took_ms: millis(begun.elapsed()), nodes: nodes.clone(), kubernetes: version });

        let senders = Senders::new(kubernetes.clone());
        let lab = Lab { kubernetes, senders, mirror, setting: request.provider.setting(), namespaces, handle };
        emit.step("installing gateway, application and client");
        let takers = taking_pods(&lab.mirror);
        lab.install(request, takers.first().filter(|_| takers.len() > 1)).await?;
        Ok(lab)
    }

    /// An existing cluster that a lab was made in.
    pub async fn attach(setting: ClusterSetting, handle: Box<dyn ClusterHandle>, plan: &Plan) -> Result<Self, RunError> {
        let kubernetes = connect(&*handle).await?;
        let namespaces = namespaces(plan);
        let mirror = Mirror::start(&kubernetes, LIST_WITHIN, seen(&*handle, &namespaces)).await?;
        let senders = Senders::new(kubernetes.clone());
        Ok(Lab { kubernetes, senders, mirror, setting, namespaces, handle })
    }

    async fn install(&self, request: &LabRequest<'_>, gateway_node: Option<&String>) -> Result<(), RunError> {
        let plan = request.plan;
        let node_selector: BTreeMap<String, String> =
            gateway_node.map(|node| ("kubernetes.io/hostname".to_owned(), node.clone())).into_iter().collect();
        let found = request.provider.found_images().into_iter().find(|found| found.named.kind == request.gateway.kind);
        let (image, agent_arguments) = match &found {
            Some(found) => (found.named.image.clone(), found.agent_arguments()),
            None => (request.gateway.image(), request.gateway.agent_arguments()),
        };
        let install = GatewayInstall {
            image,
            agent_arguments,
            // JSON is YAML.
            settings: Value::Object(plan.settings.clone()).to_string(),
            replicas: 1,
            node_selector: node_selector.clone(),
            node_ports: self.handle.host_ports().map(|ports| ports.node_ports),
            service_annotations: self.handle.host_ports().map(host_address).into_iter().collect(),
        };
        let mut manifests = gateways::manifests(request.gateway.kind, &install);
        if found.is_some() {
            named_image::placing::carry_agent_of_gateway(&mut manifests);
        }
        manifests.extend(client_manifests(&node_selector));
        manifests.extend(plan.app.iter().cloned());
        change::set_all_links(&self.kubernetes, plan.link_latency, plan.link_loss).await?;
        self.kubernetes.apply_all(&manifests, &plan.namespace).await?;
        if !plan.setup.is_empty() {
            change::make(&self.kubernetes, &plan.setup, &plan.namespace, &self.mirror.snapshot()).await?;
        }
        Ok(())
    }

    /// Makes a change and tells what was done.
    pub async fn change(&self, change: &PlannedChange, plan: &Plan, phase: Phase, emit: &Emitter) -> Result<(), RunError> {
        let made = change::make(&self.kubernetes, change, &plan.namespace, &self.mirror.snapshot()).await?;
        emit.tell(EventKind::Changed { phase, changes: made.done });
        // A watch that lags behind looks like a cluster that has settled, before the change. Where it does not come (an object that
        // was deleted again), what follows says more than this wait.
        let unseen = |mirror: &Mirror| {
            let snapshot = mirror.snapshot();
            snapshot.lacks(&made.objects).or_else(|| snapshot.keeps(&made.deleted))
        };
        let _ = self.mirror.wait(SEEN, "the change itself", unseen).await;
        Ok(())
    }

    /// Waits until a change has taken effect.
    pub async fn settle(&self, settle: &PlannedSettle, plan: &Plan, phase: Phase, emit: &Emitter) -> Result<(), RunError> {
        let begun = Instant::now();
        emit.step(format!("{}: waiting for the cluster to settle", phase.name()));
        let patient = PlannedSettle { within: settle.within * self.setting.patience, ..settle.clone() };
        settle::wait(&self.kubernetes, &self.mirror, &patient, self.setting.quiet, |snapshot| {
            let objects: Vec<&Value> = snapshot.all().map(|(_, object)| &**object).collect();
            settle.until.iter().enumerate().find_map(|(index, expected)| {
                let item = crate::signature::object::evaluate(index, expected, &objects, &plan.namespace);
                (!item.met).then(|| format!("expected {}, observed {}", item.expected, item.observed))
            })
        })
        .await?;
        emit.tell(EventKind::Settled { phase, took_ms: millis(begun.elapsed()) });
        Ok(())
    }

    /// `host:port` of the gateway's Service inside the cluster.
    pub async fn gateway_address(&self, tls: bool) -> Result<String, KubernetesError> {
        let find = |mirror: &Mirror| {
            let snapshot = mirror.snapshot();
            let ip = snapshot.get("Service", GATEWAY_NAMESPACE, GATEWAY_SERVICE)?.pointer("/spec/clusterIP")?.as_str()?.to_owned();
            (!ip.is_empty()).then_some(ip)
        };
        self.mirror
            .wait(Duration::from_secs(10), "the address of the gateway's Service", |mirror| {
                find(mirror).is_none().then(|| "it has none yet".to_owned())
            })
            .await?;
        let ip = find(&self.mirror).unwrap_or_default();
        Ok(format!("{ip}:{}", if tls { 443 } else { 80 }))
    }

    /// Where the gateway is reached from this machine: the provider writes it on the Service.
    pub fn host_address(&self, port: &str) -> Option<String> {
        let snapshot = self.mirror.snapshot();
        let service = snapshot.get("Service", GATEWAY_NAMESPACE, GATEWAY_SERVICE)?;
        let annotation = service["metadata"]["annotations"][HOST_ADDRESS].as_str()?;
        annotation
            .split(',')
            .filter_map(|entry| entry.split_once('='))
            .find(|(name, _)| *name == port)
            .map(|(_, address)| address.to_owned())
    }

    pub fn kubeconfig(&self) -> &std::path::Path {
        self.handle.kubeconfig()
    }

    /// The end of the cluster's own log.
    pub fn log_tail(&self) -> String {
        self.handle.log_tail()
    }

    /// Takes the cluster away; returns when it is gone.
    pub async fn delete(self) -> Result<(), RunError> {
        drop(self.mirror);
        Ok(self.handle.delete().await?)
    }

    /// Lets go of a detached cluster without ending it.
    pub fn detach(self) {
        drop(self);
    }
}

async fn connect(handle: &dyn ClusterHandle) -> Result<Kubernetes, KubernetesError> {
    let kubernetes = Kubernetes::connect(handle.kubeconfig(), handle.context()).await?;
    Ok(kubernetes.marking(handle.mark().map(str::to_owned)))
}

/// Namespaces that are looked at: all, unless others than the lab work in the cluster.
fn seen(handle: &dyn ClusterHandle, application: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let own = [GATEWAY_NAMESPACE, CLIENT_NAMESPACE].map(str::to_owned);
    handle.is_shared().then(|| application.iter().cloned().chain(own).collect())
}

/// As the embedded cluster writes it by itself.
fn host_address(ports: &HostPorts) -> (String, String) {
    (HOST_ADDRESS.to_owned(), format!("http={},https={}", ports.http, ports.https))
}

/// What a gateway is: for annotations and messages.
pub fn gateway_kind(plan: &Plan) -> Result<GatewayKind, RunError> {
    plan.gateway.parse().map_err(|error: gateways::UnknownGateway| RunError::Plan(error.to_string()))
}

fn node_names(mirror: &Mirror) -> Vec<String> {
    names_of_nodes(mirror, |_| true)
}

/// Nodes that the scheduler gives ordinary pods to: a control plane of several nodes is not among them.
fn taking_pods(mirror: &Mirror) -> Vec<String> {
    let is_closed =
        |node: &Value| node["spec"]["taints"].as_array().is_some_and(|taints| taints.iter().any(|taint| taint["effect"] == "NoSchedule"));
    names_of_nodes(mirror, |node| !is_closed(node))
}

fn names_of_nodes(mirror: &Mirror, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let snapshot = mirror.snapshot();
    let nodes = snapshot.of_kind("Node", None).filter(|node| wanted(node));
    let mut names: Vec<String> = nodes.filter_map(|node| node["metadata"]["name"].as_str()).map(str::to_owned).collect();
    names.sort();
    names
}

/// Under their full names, and under the name alone for manifests that do not care about the version.
fn images(request: &LabRequest<'_>) -> Vec<LabImage> {
    request
        .builds
        .iter()
        .flat_map(|build| {
            let content = build.image_mounts();
            [build.image(), format!("gatelab/{}", build.kind)].map(|name| LabImage { name, content: content.clone() })
        })
        .collect()
}

/// Every namespace that the application uses.
pub fn namespaces(plan: &Plan) -> BTreeSet<String> {
    let changes = [&plan.setup, &plan.fault, &plan.fix];
    let manifests = plan.app.iter().chain(changes.into_iter().flat_map(|change| &change.apply));
    manifests
        .filter_map(|manifest| match manifest["kind"].as_str() {
            Some("Namespace") => manifest["metadata"]["name"].as_str(),
            _ => manifest["metadata"]["namespace"].as_str(),
        })
        .map(str::to_owned)
        .chain([plan.namespace.clone()])
        .collect()
}

fn client_manifests(node_selector: &BTreeMap<String, String>) -> [Value; 2] {
    [
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": CLIENT_NAMESPACE } }),
        json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": CLIENT_POD, "namespace": CLIENT_NAMESPACE, "labels": { "app.kubernetes.io/name": CLIENT_POD } },
            "spec": {
                "nodeSelector": node_selector,
                "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "probe", "image": "gatelab/lab:dev", "imagePullPolicy": "IfNotPresent",
                    "command": ["/gatelab", "probe", "--idle"] }],
            } }),
    ]
}

/// For reports.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
