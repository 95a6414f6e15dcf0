//! StatefulSets, DaemonSets, Jobs, budgets and lost nodes, with the store and the controllers as they run in a lab; the
//! kubelet is played by the test.

#![allow(clippy::expect_used)] // fixtures of a test: a panic is its failure

use std::sync::Arc;
use std::time::Duration;

use embedded_cluster::controllers::{ControllersConfig, spawn_all};
use embedded_cluster::store::{DeleteOptions, Resource, Store, Typed};
use futures::FutureExt;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const GRACE: Duration = Duration::from_millis(400);

struct Cluster {
    store: Store,
    pods: Typed<Pod>,
    _controllers: JoinSet<()>,
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of that type")
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "app", "image": "one"}]}})
}

impl Cluster {
    async fn start() -> Self {
        let store = Store::default();
        let config =
            ControllersConfig { ca_certificate: "CA".to_owned(), node_grace: GRACE, apply: Arc::new(|_| async { Ok(()) }.boxed()) };
        let controllers = spawn_all(&store, config);
        for name in ["kube-node-lease", "shop"] {
            Typed::<Namespace>::new(&store).create("", &object(json!({"metadata": {"name": name}}))).expect("a namespace");
        }
        for name in ["node-a", "node-b"] {
            let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            Typed::<Node>::new(&store).create("", &object(json!({"metadata": {"name": name}, "status": status}))).expect("a node");
        }
        Self { pods: Typed::new(&store), store, _controllers: controllers }
    }

    /// Waits, bounded, until the closure gives something.
    async fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..2000 {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never: {what}; pods: {:?}", self.names());
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.pods.list(Some("shop")).iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        names.sort();
        names
    }

    fn status(&self, pod: &str, phase: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let status = json!({"phase": phase, "podIP": "10.244.0.9", "conditions": [{"type": "Ready", "status": ready}]});
        self.store
            .modify(&Resource::of::<Pod>(), Some("shop"), pod, |object| {
                object["status"] = status.clone();
                Ok(())
            })
            .expect("a pod");
    }

    fn gone(&self, pod: &str) {
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        self.pods.delete("shop", pod, &now).expect("deleted");
    }

    fn deleted(&self, pod: &str) -> bool {
        self.pods.get("shop", pod).is_ok_and(|pod| pod.metadata.deletion_timestamp.is_some())
    }

    fn said(&self, reason: &str) -> Option<String> {
        let events = Typed::<Event>::new(&self.store).list(None);
        events.iter().find(|event| event.reason.as_deref() == Some(reason)).and_then(|event| event.message.clone())
    }
}

#[tokio::test]
async fn stateful_pods_come_one_by_one_and_are_replaced_from_the_last() {
    let cluster = Cluster::start().await;
    let sets = Typed::<StatefulSet>::new(&cluster.store);
    let spec = json!({"serviceName": "db", "replicas": 2, "selector": {"matchLabels": {"app": "db"}}, "template": template("db")});
    sets.create("shop", &object(json!({"metadata": {"name": "db"}, "spec": spec}))).expect("a StatefulSet");
    cluster.until("the first pod", || (cluster.names() == ["db-0"]).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.names(), ["db-0"], "the second waits until the first is ready");
    cluster.status("db-0", "Running", true);
    cluster.until("the second pod", || (cluster.names() == ["db-0", "db-1"]).then_some(())).await;
    cluster.status("db-1", "Running", true);
    let settled = || sets.get("shop", "db").ok().and_then(|set| set.status.clone()).filter(|s| s.ready_replicas == Some(2));
    let before = cluster.until("both ready", settled).await;
    sets.modify("shop", "db", |set| {
        set.spec.as_mut().expect("a spec").template.spec.as_mut().expect("a spec").containers[0].image = Some("two".to_owned());
        Ok(())
    })
    .expect("changed");
    cluster.until("the last pod goes first", || cluster.deleted("db-1").then_some(())).await;
    assert!(!cluster.deleted("db-0"));
    cluster.gone("db-1");
    let again = || cluster.pods.get("shop", "db-1").ok().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let pod = cluster.until("the last pod again", again).await;
    assert_eq!(pod.spec.as_ref().and_then(|s| s.containers[0].image.as_deref()), Some("two"));
    assert!(!cluster.deleted("db-0"), "the next waits until the new one is ready");
    cluster.status("db-1", "Running", true);
    cluster.until("then the first", || cluster.deleted("db-0").then_some(())).await;
    cluster.gone("db-0");
    cluster.until("the first again", || cluster.pods.get("shop", "db-0").ok()).await;
    cluster.status("db-0", "Running", true);
    let rolled = || sets.get("shop", "db").ok().and_then(|s| s.status.clone()).filter(|s| s.current_revision == s.update_revision);
    let after = cluster.until("the rollout is complete", rolled).await;
    assert_ne!(before.current_revision, after.current_revision);
    assert_eq!(cluster.said("SuccessfulDelete").as_deref(), Some("delete Pod db-1 in StatefulSet db successful"));
}

#[tokio::test]
async fn a_daemon_set_has_a_pod_on_every_node_and_follows_nodes() {
    let cluster = Cluster::start().await;
    let sets = Typed::<DaemonSet>::new(&cluster.store);
    let spec = json!({"selector": {"matchLabels": {"app": "agent"}}, "template": template("agent")});
    sets.create("shop", &object(json!({"metadata": {"name": "agent"}, "spec": spec}))).expect("a DaemonSet");
    let nodes = || {
        let node = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|s| s.node_name.clone());
        let mut nodes: Vec<String> = cluster.pods.list(Some("shop")).iter().filter_map(node).collect();
        nodes.sort();
        nodes
    };
    cluster.until("a pod on each node", || (nodes() == ["node-a", "node-b"]).then_some(())).await;
    let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let node = json!({"metadata": {"name": "node-c"}, "spec": {"unschedulable": true}, "status": status});
    Typed::<Node>::new(&cluster.store).create("", &object(node)).expect("a node");
    cluster.until("a pod on the new node, although it is cordoned", || (nodes().len() == 3).then_some(())).await;
    let status = || sets.get("shop", "agent").ok().and_then(|set| set.status.clone()).filter(|s| s.current_number_scheduled == 3);
    assert_eq!(cluster.until("the status", status).await.desired_number_scheduled, 3);
}

#[tokio::test]
async fn jobs_end_in_success_or_at_their_limit() {
    let cluster = Cluster::start().await;
    let jobs = Typed::<Job>::new(&cluster.store);
    let pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "app", "image": "one"}]}});
    for (name, limit) in [("good", 6), ("bad", 0)] {
        let spec = json!({"completions": 2, "parallelism": 2, "backoffLimit": limit, "template": pod});
        jobs.create("shop", &object(json!({"metadata": {"name": name}, "spec": spec}))).expect("a Job");
    }
    cluster.until("two pods each", || (cluster.names().len() == 4).then_some(())).await;
    for name in cluster.names() {
        let phase = if name.starts_with("good") { "Succeeded" } else { "Failed" };
        cluster.status(&name, phase, false);
    }
    let condition = |name: &str, kind: &str| {
        let job = jobs.get("shop", name).ok()?;
        let conditions = job.status.as_ref()?.conditions.clone()?;
        conditions.into_iter().find(|c| c.type_ == kind && c.status == "True")
    };
    cluster.until("success", || condition("good", "Complete")).await;
    let failed = cluster.until("failure", || condition("bad", "Failed")).await;
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(jobs.get("shop", "good").expect("the Job").status.clone().expect("a status").succeeded, Some(2));
    let held = cluster.pods.list(Some("shop")).iter().any(|pod| pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()));
    assert!(!held, "what was counted is let go");
}

#[tokio::test]
async fn a_budget_says_how_many_pods_may_go() {
    let cluster = Cluster::start().await;
    let budgets = Typed::<PodDisruptionBudget>::new(&cluster.store);
    for name in ["a", "b", "c"] {
        let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"nodeName": "node-a", "containers": []}});
        cluster.pods.create("shop", &object(pod)).expect("a pod");
        cluster.status(name, "Running", name != "c");
    }
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    budgets.create("shop", &object(json!({"metadata": {"name": "web"}, "spec": spec}))).expect("a budget");
    let status = || budgets.get("shop", "web").ok().and_then(|b| b.status.clone()).filter(|s| s.observed_generation == Some(1));
    let status = cluster.until("the status", status).await;
    assert_eq!((status.expected_pods, status.current_healthy, status.desired_healthy, status.disruptions_allowed), (3, 2, 1, 1));
}

#[tokio::test]
async fn a_node_whose_lease_is_not_renewed_is_lost_and_its_pods_are_evicted_but_stay() {
    let cluster = Cluster::start().await;
    let leases = Typed::<Lease>::new(&cluster.store);
    let now = || jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    leases.create("kube-node-lease", &object(json!({"metadata": {"name": "node-a"}, "spec": {"renewTime": now()}}))).expect("a Lease");
    let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0});
    let tolerations = ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"].map(toleration);
    let spec = json!({"nodeName": "node-a", "containers": [{"name": "app"}], "tolerations": tolerations});
    cluster.pods.create("shop", &object(json!({"metadata": {"name": "web"}, "spec": spec}))).expect("a pod");
    cluster.status("web", "Running", true);
    // The node is looked at when something of it changes, and from then on by the clock.
    let nodes = Typed::<Node>::new(&cluster.store);
    nodes
        .modify("", "node-a", |node| {
            node.metadata.labels = Some([("seen".to_owned(), "yes".to_owned())].into());
            Ok(())
        })
        .expect("a node");
    let ready = |name: &str| {
        let node = nodes.get("", name).expect("a node");
        node.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "Ready").map(|c| c.status.clone())
    };
    cluster.until("the node is lost", || (ready("node-a").as_deref() == Some("Unknown")).then_some(())).await;
    cluster.until("its pod is evicted", || cluster.deleted("web").then_some(())).await;
    assert_eq!(ready("node-b").as_deref(), Some("True"), "nobody promised to renew a Lease of this one");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(cluster.pods.get("shop", "web").is_ok(), "only its kubelet could say that it ended");
    let taints = nodes.get("", "node-a").expect("a node").spec.clone().and_then(|s| s.taints).unwrap_or_default();
    assert!(taints.iter().any(|t| t.key == "node.kubernetes.io/unreachable" && t.effect == "NoExecute"));
    assert_eq!(cluster.said("NodeNotReady").as_deref(), Some("Node node-a status is now: NodeNotReady"));
}
