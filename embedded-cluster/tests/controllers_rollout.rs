//! Deployments from their manifest to ready endpoints, with the store and the controllers as they run in a lab. Only the
//! kubelet is played by the test, so that it decides when a pod is ready.

#![allow(clippy::expect_used)] // fixtures of a test: a panic is its failure

use std::sync::{Arc, Mutex};
use std::time::Duration;

use embedded_cluster::controllers::{ControllersConfig, spawn_all};
use embedded_cluster::network::NetworkPlan;
use embedded_cluster::store::{DeleteOptions, Store, Typed};
use futures::FutureExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::task::JoinSet;

struct Cluster {
    store: Store,
    pods: Typed<Pod>,
    sets: Typed<ReplicaSet>,
    deployments: Typed<Deployment>,
    plans: Arc<Mutex<Vec<NetworkPlan>>>,
    _controllers: JoinSet<()>,
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of that type")
}

impl Cluster {
    async fn start() -> Self {
        let store = Store::default();
        let plans: Arc<Mutex<Vec<NetworkPlan>>> = Arc::default();
        let told = plans.clone();
        let config = ControllersConfig {
            ca_certificate: "CA".to_owned(),
            node_grace: Duration::from_secs(50),
            apply: Arc::new(move |plan| {
                told.lock().expect("not poisoned").push(plan);
                async { Ok(()) }.boxed()
            }),
        };
        let controllers = spawn_all(&store, config);
        for name in ["node-a", "node-b"] {
            let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            Typed::<Node>::new(&store).create("", &object(json!({"metadata": {"name": name}, "status": status}))).expect("a node");
        }
        Typed::<Namespace>::new(&store).create("", &object(json!({"metadata": {"name": "shop"}}))).expect("a namespace");
        Self {
            pods: Typed::new(&store),
            sets: Typed::new(&store),
            deployments: Typed::new(&store),
            store,
            plans,
            _controllers: controllers,
        }
    }

    fn deploy(&self, replicas: i32, strategy: Value) {
        let labels = json!({"app": "web"});
        let container = json!({"name": "app", "image": "one", "ports": [{"name": "http", "containerPort": 8080}]});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
        let spec = json!({"replicas": replicas, "selector": {"matchLabels": labels}, "strategy": strategy, "template": template});
        self.deployments.create("shop", &object(json!({"metadata": {"name": "web"}, "spec": spec}))).expect("a Deployment");
        let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
        let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}});
        Typed::<Service>::new(&self.store).create("shop", &object(service)).expect("a Service");
    }

    fn change(&self, change: impl FnOnce(&mut Deployment)) {
        self.deployments
            .modify("shop", "web", |deployment| {
                change(deployment);
                Ok(())
            })
            .expect("changed");
    }

    fn image(&self, image: &str) {
        self.change(|d| {
            d.spec.as_mut().expect("a spec").template.spec.as_mut().expect("a spec").containers[0].image = Some(image.to_owned())
        });
    }

    fn live_pods(&self) -> Vec<Arc<Pod>> {
        self.pods.list(Some("shop")).into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    fn images(&self) -> Vec<String> {
        let image = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|s| s.containers[0].image.clone()).unwrap_or_default();
        let mut images: Vec<String> = self.live_pods().iter().map(image).collect();
        images.sort();
        images
    }

    /// Plays the kubelet: every bound pod gets an address and is ready as told; deleted ones go at once.
    fn run_pods(&self, ready: bool) {
        for (index, pod) in self.pods.list(Some("shop")).into_iter().enumerate() {
            let name = pod.metadata.name.clone().expect("a name");
            if pod.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_none() {
                continue;
            }
            if pod.metadata.deletion_timestamp.is_some() {
                let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
                self.pods.delete("shop", &name, &now).expect("gone");
                continue;
            }
            if pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).is_some() {
                continue;
            }
            self.set_ready(&name, ready, u8::try_from(index + 2).expect("few pods"));
        }
    }

    fn set_ready(&self, name: &str, ready: bool, address: u8) {
        self.pods
            .modify("shop", name, |pod| {
                let status = pod.status.get_or_insert_default();
                status.phase = Some("Running".to_owned());
                status.pod_ip.get_or_insert_with(|| format!("10.244.0.{address}"));
                let conditions = status.conditions.get_or_insert_default();
                conditions.retain(|c| c.type_ != "Ready");
                conditions.push(object(json!({"type": "Ready", "status": if ready { "True" } else { "False" }})));
                Ok(())
            })
            .expect("changed");
    }

    /// Lets the controllers work until `holds`, playing the kubelet meanwhile if `ready` says so.
    async fn until(&self, what: &str, ready: Option<bool>, mut holds: impl FnMut() -> bool) {
        for _ in 0..2000 {
            if holds() {
                return;
            }
            if let Some(ready) = ready {
                self.run_pods(ready);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("never happened: {what}; pods {:?}", self.images());
    }

    async fn settle(&self) {
        let mut version = 0;
        let mut quiet = 0;
        while quiet < 20 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            quiet = if self.store.resource_version() == version { quiet + 1 } else { 0 };
            version = self.store.resource_version();
        }
    }

    fn status(&self) -> Value {
        let deployment = self.deployments.get("shop", "web").expect("the Deployment");
        serde_json::to_value(deployment.status.clone()).expect("a status")
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let status = self.status();
        let condition = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind).cloned().unwrap_or_default();
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }

    fn reasons(&self) -> Vec<String> {
        Typed::<Event>::new(&self.store).list(None).iter().filter_map(|event| event.reason.clone()).collect()
    }
}

#[tokio::test]
async fn a_deployment_becomes_available_and_its_service_gets_endpoints() {
    let cluster = Cluster::start().await;
    cluster.deploy(3, json!({}));
    cluster
        .until("three pods are bound", None, || {
            let bound = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_some();
            cluster.live_pods().iter().filter(|pod| bound(pod)).count() == 3
        })
        .await;
    assert_eq!(cluster.condition("Available"), ("False".to_owned(), "MinimumReplicasUnavailable".to_owned()));
    cluster.until("all are available", Some(true), || cluster.status()["availableReplicas"] == 3).await;
    cluster.settle().await;
    assert_eq!(cluster.condition("Available"), ("True".to_owned(), "MinimumReplicasAvailable".to_owned()));
    assert_eq!(cluster.condition("Progressing"), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
    let slices = Typed::<EndpointSlice>::new(&cluster.store).list(Some("shop"));
    assert_eq!((slices.len(), slices[0].endpoints.len()), (1, 3));
    let subsets = Typed::<Endpoints>::new(&cluster.store).get("shop", "web").expect("Endpoints").subsets.clone().expect("subsets");
    assert_eq!(subsets[0].addresses.as_ref().map(Vec::len), Some(3));
    let plan = cluster.plans.lock().expect("not poisoned").last().cloned().expect("a plan");
    assert_eq!((plan.services.len(), plan.services[0].endpoints.len(), plan.services[0].endpoints[0].1), (1, 3, 8080));
    for reason in ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"] {
        assert!(cluster.reasons().contains(&reason.to_owned()), "{reason}");
    }
    let on = |node: &str| cluster.live_pods().iter().filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node)).count();
    assert!(on("node-a") >= 1 && on("node-b") >= 1, "replicas are spread");
}

#[tokio::test]
async fn a_rolling_update_waits_for_new_pods_to_be_ready_and_can_be_undone() {
    let cluster = Cluster::start().await;
    cluster.deploy(2, json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}));
    cluster.until("the first version is available", Some(true), || cluster.status()["availableReplicas"] == 2).await;
    cluster.image("two");
    cluster.until("one new pod is there", None, || cluster.images() == ["one", "one", "two"]).await;
    cluster
        .until("it runs", Some(false), || cluster.live_pods().iter().all(|p| p.status.as_ref().is_some_and(|s| s.pod_ip.is_some())))
        .await;
    cluster.settle().await;
    assert_eq!(cluster.images(), ["one", "one", "two"], "an unready pod holds the rollout up");
    for pod in cluster.live_pods() {
        cluster.set_ready(pod.metadata.name.as_deref().expect("a name"), true, 99);
    }
    cluster
        .until("the new version took over", Some(true), || cluster.images() == ["two", "two"] && cluster.status()["updatedReplicas"] == 2)
        .await;
    cluster.until("it is complete", Some(true), || cluster.condition("Progressing").1 == "NewReplicaSetAvailable").await;
    let revisions = |cluster: &Cluster| {
        let mut revisions: Vec<(String, i32)> = cluster
            .sets
            .list(Some("shop"))
            .iter()
            .map(|set| {
                let revision = set.metadata.annotations.as_ref().and_then(|a| a.get("deployment.kubernetes.io/revision")).cloned();
                (revision.unwrap_or_default(), set.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default())
            })
            .collect();
        revisions.sort();
        revisions
    };
    assert_eq!(revisions(&cluster), [("1".to_owned(), 0), ("2".to_owned(), 2)]);
    // As `kubectl rollout undo` does: the old template comes back, and with it the old ReplicaSet.
    cluster.image("one");
    cluster.until("the old version is back", Some(true), || cluster.images() == ["one", "one"]).await;
    cluster.settle().await;
    assert_eq!(revisions(&cluster), [("2".to_owned(), 0), ("3".to_owned(), 2)]);
}

#[tokio::test]
async fn recreate_starts_nothing_before_the_last_old_pod_is_gone() {
    let cluster = Cluster::start().await;
    cluster.deploy(2, json!({"type": "Recreate"}));
    cluster.until("the first version is available", Some(true), || cluster.status()["availableReplicas"] == 2).await;
    cluster.image("two");
    cluster.until("the old pods are being deleted", None, || cluster.live_pods().is_empty()).await;
    cluster.settle().await;
    assert!(cluster.live_pods().is_empty() && cluster.pods.list(Some("shop")).len() == 2, "they still shut down");
    cluster.until("the new version runs", Some(true), || cluster.images() == ["two", "two"]).await;
}

#[tokio::test]
async fn scaling_down_takes_unready_pods_first() {
    let cluster = Cluster::start().await;
    cluster.deploy(3, json!({}));
    cluster.until("all are available", Some(true), || cluster.status()["availableReplicas"] == 3).await;
    let unready = cluster.live_pods()[1].metadata.name.clone().expect("a name");
    cluster.set_ready(&unready, false, 99);
    cluster.change(|d| d.spec.as_mut().expect("a spec").replicas = Some(2));
    cluster.until("two are left", None, || cluster.live_pods().len() == 2).await;
    assert!(cluster.live_pods().iter().all(|pod| pod.metadata.name.as_ref() != Some(&unready)));
}

#[tokio::test]
async fn relabelled_pods_are_let_go_of_and_matching_ones_taken_over() {
    let cluster = Cluster::start().await;
    cluster.deploy(1, json!({}));
    cluster.until("it is available", Some(true), || cluster.status()["availableReplicas"] == 1).await;
    let name = cluster.live_pods()[0].metadata.name.clone().expect("a name");
    let relabel = |value: &str| {
        cluster
            .pods
            .modify("shop", &name, |pod| {
                pod.metadata.labels.get_or_insert_default().insert("app".to_owned(), value.to_owned());
                Ok(())
            })
            .expect("changed");
    };
    relabel("elsewhere");
    cluster.until("another took its place", Some(true), || cluster.live_pods().len() == 2).await;
    let owners = |name: &str| cluster.pods.get("shop", name).expect("the pod").metadata.owner_references.clone().unwrap_or_default().len();
    assert_eq!(owners(&name), 0);
    let addresses = || -> Vec<String> {
        let slices = Typed::<EndpointSlice>::new(&cluster.store).list(Some("shop"));
        slices.iter().flat_map(|s| s.endpoints.iter().flat_map(|e| e.addresses.clone())).collect()
    };
    let its_address = cluster.pods.get("shop", &name).expect("the pod").status.as_ref().and_then(|s| s.pod_ip.clone()).expect("an address");
    cluster.until("it left the endpoints", Some(true), || !addresses().contains(&its_address)).await;
    relabel("web");
    cluster.until("one of the two is surplus", Some(true), || cluster.live_pods().len() == 1).await;
}

#[tokio::test]
async fn a_namespace_has_its_account_and_certificate_and_is_emptied_before_it_goes() {
    let cluster = Cluster::start().await;
    let accounts: Typed<ServiceAccount> = Typed::new(&cluster.store);
    let maps: Typed<ConfigMap> = Typed::new(&cluster.store);
    let namespaces: Typed<Namespace> = Typed::new(&cluster.store);
    cluster.until("it has both", None, || accounts.get("shop", "default").is_ok() && maps.get("shop", "kube-root-ca.crt").is_ok()).await;
    cluster.deploy(2, json!({}));
    cluster.until("its pods run", Some(true), || cluster.status()["availableReplicas"] == 2).await;
    namespaces.delete("", "shop", &DeleteOptions::default()).expect("deleted");
    cluster.settle().await;
    let phase = namespaces.get("", "shop").expect("it waits for its pods").status.as_ref().and_then(|s| s.phase.clone());
    assert_eq!(phase.as_deref(), Some("Terminating"));
    cluster.until("it is gone", Some(true), || namespaces.get("", "shop").is_err()).await;
    assert!(cluster.pods.list(Some("shop")).is_empty() && cluster.sets.list(Some("shop")).is_empty());
    assert!(Typed::<Service>::new(&cluster.store).list(Some("shop")).is_empty());
}

#[tokio::test]
async fn deleting_a_deployment_takes_its_sets_and_pods_along() {
    let cluster = Cluster::start().await;
    cluster.deploy(2, json!({}));
    cluster.until("it is available", Some(true), || cluster.status()["availableReplicas"] == 2).await;
    cluster.deployments.delete("shop", "web", &DeleteOptions::default()).expect("deleted");
    cluster
        .until("nothing is left", Some(true), || cluster.sets.list(Some("shop")).is_empty() && cluster.pods.list(Some("shop")).is_empty())
        .await;
}
