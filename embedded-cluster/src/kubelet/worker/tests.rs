//! Pods taken through their lives on a runtime without processes, in paused time: hours pass in milliseconds, and every
//! moment is exact.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Event, Pod};
use serde_json::{Value, json};

use super::super::back_off::BackOffLimits;
use super::super::node::{Kubelet, KubeletSettings, NodeIdentity};
use super::fake_runtime::{FakeRuntime, Script};
use crate::controllers::objects::Objects;
use crate::controllers::pods::condition;
use crate::store::{DeleteOptions, Store};

struct Lab {
    store: Store,
    runtime: FakeRuntime,
    pods: Objects<Pod>,
    _kubelet: Arc<Kubelet>,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let store = Store::default();
        let runtime = FakeRuntime::new();
        let folder = tempfile::tempdir().expect("a folder");
        let settings = KubeletSettings {
            state_dir: folder.path().to_owned(),
            token_issuer: Arc::new(|namespace, account| format!("{namespace}/{account}")),
            ca_certificate: "CA".to_owned(),
            cluster_dns: [10, 96, 0, 10].into(),
            cluster_domain: "cluster.local".to_owned(),
            back_off: BackOffLimits::default(),
            api: None,
        };
        let node = NodeIdentity {
            name: "node-1".to_owned(),
            address: [172, 18, 0, 2].into(),
            pod_cidr: "10.244.0.0/24".parse().expect("a network"),
            labels: vec![],
        };
        let kubelet = Kubelet::new(&store, node, settings, Arc::new(runtime.clone()));
        kubelet.spawn();
        Self { pods: Objects::new(&store), store, runtime, _kubelet: kubelet, _folder: folder }
    }

    /// A pod bound to the node; `spec` is completed.
    fn run(&self, mut spec: Value) {
        spec["nodeName"] = "node-1".into();
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container.as_object_mut().expect("a container").entry("image").or_insert("image".into());
            }
        }
        let pod = serde_json::from_value(json!({"metadata": {"name": "pod"}, "spec": spec})).expect("a Pod");
        self.pods.create("n", &pod).expect("created");
    }

    fn pod(&self) -> Pod {
        (*self.pods.get("n", "pod").expect("the pod is there")).clone()
    }

    fn delete(&self, grace: Option<i64>) {
        let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
        self.pods.delete(&("n".to_owned(), "pod".to_owned()), &options).expect("deleted");
    }

    fn gone(&self) -> bool {
        self.pods.get("n", "pod").is_none()
    }

    fn container(&self) -> ContainerStatus {
        self.pod().status.and_then(|s| s.container_statuses).expect("statuses").remove(0)
    }

    fn waiting(&self) -> Option<String> {
        self.container().state?.waiting?.reason
    }

    fn phase(&self) -> String {
        self.pod().status.and_then(|s| s.phase).unwrap_or_default()
    }

    fn is(&self, kind: &str) -> bool {
        condition(&self.pod(), kind).is_some_and(|c| c.status == "True")
    }

    fn reasons(&self) -> Vec<String> {
        let events: Objects<Event> = Objects::new(&self.store);
        events.list(None).iter().filter_map(|e| e.reason.clone()).collect()
    }
}

/// A little past a whole number of seconds, so that what is due then has happened.
async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count) + Duration::from_millis(5)).await;
}

fn never_stops() -> Script {
    Script { ignores_sigterm: true, ..Script::default() }
}

fn runs(runs: &[(u64, i32)]) -> Script {
    Script { runs: runs.iter().map(|(s, code)| (Duration::from_secs(*s), *code)).collect(), ..Script::default() }
}

#[tokio::test(start_paused = true)]
async fn a_simple_pod_is_running_and_ready_at_once() {
    let lab = Lab::new();
    lab.run(json!({"containers": [{"name": "app"}]}));
    seconds(0).await;
    assert_eq!(lab.phase(), "Running");
    for condition in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        assert!(lab.is(condition), "{condition}");
    }
    let status = lab.pod().status.expect("a status");
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref()), (Some("10.244.0.9"), Some("172.18.0.2")));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let container = lab.container();
    assert_eq!((container.ready, container.started, container.restart_count), (true, Some(true), 0));
    assert!(container.container_id.is_some_and(|id| id.starts_with("containerd://")));
    for reason in ["Pulled", "Created", "Started"] {
        assert!(lab.reasons().contains(&reason.to_owned()), "{reason}");
    }
    let mounts = &lab.runtime.specs()[0].mounts;
    let token = mounts.iter().find(|m| m.target.ends_with("serviceaccount")).expect("the token's folder");
    assert_eq!(std::fs::read_to_string(token.source.join("token")).expect("a token"), "n/default");
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_in_order_and_sidecars_hold_back_what_comes_after_them() {
    let lab = Lab::new();
    lab.runtime.script("first", runs(&[(2, 0)]));
    lab.runtime.fail("check proxy", true);
    let startup = json!({"exec": {"command": ["check", "proxy"]}, "periodSeconds": 1, "failureThreshold": 100});
    lab.run(json!({
        "initContainers": [{"name": "first"}, {"name": "proxy", "restartPolicy": "Always", "startupProbe": startup}],
        "containers": [{"name": "app"}],
    }));
    seconds(5).await;
    assert_eq!(lab.runtime.journal(), ["0 start first", "2 end first", "2 start proxy"]);
    assert_eq!((lab.phase().as_str(), lab.is("Initialized"), lab.waiting().as_deref()), ("Pending", false, Some("PodInitializing")));
    lab.runtime.fail("check proxy", false);
    seconds(2).await;
    assert_eq!((lab.phase().as_str(), lab.is("Initialized"), lab.is("Ready")), ("Running", true, true));
    assert!(lab.runtime.journal().iter().any(|line| line.ends_with("start app")));
}

#[tokio::test(start_paused = true)]
async fn sidecars_stop_after_the_application_in_reverse_order() {
    let lab = Lab::new();
    lab.runtime.script("app", Script { stops_after: Duration::from_secs(3), ..Script::default() });
    lab.runtime.script("b", Script { stops_after: Duration::from_secs(2), ..Script::default() });
    let sidecar = |name: &str| json!({"name": name, "restartPolicy": "Always"});
    lab.run(json!({"initContainers": [sidecar("a"), sidecar("b")], "containers": [{"name": "app"}]}));
    seconds(0).await;
    lab.delete(None);
    seconds(10).await;
    let expected = ["0 term app", "3 end app", "3 term b", "5 end b", "5 term a", "5 end a", "5 remove sandbox"];
    assert_eq!(lab.runtime.journal()[3..], expected);
    assert!(lab.gone());
}

#[tokio::test(start_paused = true)]
async fn pre_stop_counts_within_the_grace_period() {
    let lab = Lab::new();
    lab.runtime.script("app", never_stops());
    let hook = json!({"preStop": {"exec": {"command": ["sleep", "5"]}}});
    lab.run(json!({"terminationGracePeriodSeconds": 12, "containers": [{"name": "app", "lifecycle": hook}]}));
    seconds(0).await;
    lab.delete(None);
    seconds(8).await;
    assert!(!lab.gone() && lab.pod().metadata.deletion_timestamp.is_some(), "still there while it shuts down");
    assert!(lab.is("Ready"), "going away does not by itself make a pod unready");
    seconds(10).await;
    assert_eq!(lab.runtime.journal()[1..], ["0 exec app sleep 5", "5 term app", "12 kill app", "12 end app", "12 remove sandbox"]);
    assert!(lab.gone());
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_longer_than_the_grace_period_leaves_two_seconds() {
    let lab = Lab::new();
    lab.runtime.script("app", never_stops());
    let hook = json!({"preStop": {"sleep": {"seconds": 60}}});
    lab.run(json!({"terminationGracePeriodSeconds": 5, "containers": [{"name": "app", "lifecycle": hook}]}));
    seconds(0).await;
    lab.delete(None);
    seconds(20).await;
    assert_eq!(lab.runtime.journal()[1..], ["5 term app", "7 kill app", "7 end app", "7 remove sandbox"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_deletion_can_shorten_the_grace_period() {
    let lab = Lab::new();
    lab.runtime.script("app", never_stops());
    lab.run(json!({"containers": [{"name": "app"}]}));
    seconds(0).await;
    lab.delete(Some(600));
    seconds(3).await;
    lab.delete(Some(5));
    seconds(5).await;
    assert_eq!(lab.runtime.journal()[1..], ["0 term app", "5 kill app", "5 end app", "5 remove sandbox"]);
}

#[tokio::test(start_paused = true)]
async fn a_forced_deletion_removes_the_object_first_and_the_processes_soon_after() {
    let lab = Lab::new();
    lab.runtime.script("app", never_stops());
    let hook = json!({"preStop": {"sleep": {"seconds": 60}}});
    lab.run(json!({"containers": [{"name": "app", "lifecycle": hook}]}));
    seconds(0).await;
    lab.delete(Some(0));
    assert!(lab.gone());
    seconds(3).await;
    assert_eq!(lab.runtime.journal()[1..], ["0 term app", "2 kill app", "2 end app", "2 remove sandbox"]);
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_backs_off_from_ten_seconds_to_five_minutes() {
    let lab = Lab::new();
    lab.runtime.script("app", runs(&[(1, 3); 9]));
    lab.run(json!({"containers": [{"name": "app"}]}));
    seconds(5).await;
    assert_eq!(lab.waiting().as_deref(), Some("CrashLoopBackOff"));
    assert!(!lab.is("Ready"));
    let last = lab.container().last_state.and_then(|s| s.terminated).expect("a last end");
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    let message = lab.container().state.and_then(|s| s.waiting).and_then(|w| w.message).unwrap_or_default();
    assert!(message.starts_with("back-off 10s restarting failed container=app pod=pod_n("), "{message}");
    seconds(1300).await;
    // Each run lasts one second; then 0, 10, 20, 40, 80, 160, 300, 300 of waiting.
    assert_eq!(lab.runtime.times("start app"), [0, 1, 12, 33, 74, 155, 316, 617, 918, 1219]);
    assert_eq!((lab.container().restart_count, lab.waiting()), (9, None));
    assert!(lab.reasons().contains(&"BackOff".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_its_thresholds() {
    let lab = Lab::new();
    lab.runtime.fail("check", true);
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 10, "failureThreshold": 3});
    lab.run(json!({"containers": [{"name": "app", "readinessProbe": probe}]}));
    seconds(5).await;
    assert_eq!((lab.phase().as_str(), lab.is("Ready")), ("Running", false));
    lab.runtime.fail("check", false);
    seconds(3).await;
    assert!(!lab.is("Ready"), "Kubernetes looks again only after periodSeconds");
    seconds(3).await;
    assert!(lab.is("Ready"));
    lab.runtime.fail("check", true);
    seconds(20).await;
    assert!(lab.is("Ready"), "two failures are not three");
    seconds(10).await;
    assert!(!lab.is("Ready"));
    assert_eq!(lab.container().restart_count, 0, "readiness never restarts");
    assert!(lab.reasons().contains(&"Unhealthy".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn readiness_is_still_probed_while_the_pod_terminates() {
    let lab = Lab::new();
    lab.runtime.script("app", never_stops());
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1});
    lab.run(json!({"containers": [{"name": "app", "readinessProbe": probe}]}));
    seconds(2).await;
    lab.delete(None);
    seconds(3).await;
    assert!(lab.is("Ready"));
    lab.runtime.fail("check", true);
    seconds(2).await;
    assert!(!lab.is("Ready"));
}

#[tokio::test(start_paused = true)]
async fn a_failing_liveness_probe_kills_and_restarts() {
    let lab = Lab::new();
    lab.runtime.script("app", never_stops());
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 10, "failureThreshold": 2, "terminationGracePeriodSeconds": 4});
    lab.run(json!({"containers": [{"name": "app", "livenessProbe": probe}]}));
    seconds(2).await;
    lab.runtime.fail("check", true);
    // Probed at 0, 10 and 20; killed by the second failure, four seconds of grace.
    seconds(30).await;
    assert_eq!(lab.runtime.journal(), ["0 start app", "20 term app", "24 kill app", "24 end app", "24 start app"]);
    assert_eq!(lab.container().restart_count, 1);
    assert!(lab.reasons().contains(&"Killing".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_keeps_the_others_waiting() {
    let lab = Lab::new();
    lab.runtime.fail("check start", true);
    lab.runtime.fail("check live", true);
    let container = json!({
        "name": "app",
        "startupProbe": {"exec": {"command": ["check", "start"]}, "periodSeconds": 5, "failureThreshold": 10},
        "livenessProbe": {"exec": {"command": ["check", "live"]}, "periodSeconds": 1, "failureThreshold": 1},
    });
    lab.run(json!({"containers": [container]}));
    seconds(30).await;
    assert_eq!(lab.runtime.times("probe app check live"), [] as [u64; 0]);
    assert_eq!((lab.container().started, lab.is("Ready")), (Some(false), false));
    lab.runtime.fail("check live", false);
    lab.runtime.fail("check start", false);
    seconds(6).await;
    assert_eq!((lab.container().started, lab.is("Ready")), (Some(true), true));
    assert!(!lab.runtime.times("probe app check live").is_empty());
}

#[tokio::test(start_paused = true)]
async fn post_start_holds_back_the_next_container() {
    let lab = Lab::new();
    let hook = json!({"postStart": {"exec": {"command": ["sleep", "7"]}}});
    lab.run(json!({"containers": [{"name": "proxy", "lifecycle": hook}, {"name": "app"}]}));
    seconds(3).await;
    assert_eq!((lab.phase().as_str(), lab.waiting().as_deref()), ("Pending", Some("ContainerCreating")));
    seconds(5).await;
    assert_eq!(lab.runtime.journal(), ["0 start proxy", "0 exec proxy sleep 7", "7 start app"]);
    assert!(lab.is("Ready"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_hook_restarts_the_container() {
    let lab = Lab::new();
    lab.runtime.fail("false", true);
    lab.run(json!({"containers": [{"name": "app", "lifecycle": {"postStart": {"exec": {"command": ["false"]}}}}]}));
    seconds(1).await;
    assert!(lab.reasons().contains(&"FailedPostStartHook".to_owned()));
    assert!(lab.runtime.times("term app").len() >= 2 && lab.container().restart_count >= 1);
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_to_end_do_so_with_their_sidecars() {
    for (code, phase) in [(0, "Succeeded"), (3, "Failed")] {
        let lab = Lab::new();
        lab.runtime.script("app", runs(&[(5, code)]));
        let sidecar = json!({"name": "proxy", "restartPolicy": "Always"});
        lab.run(json!({"restartPolicy": "Never", "initContainers": [sidecar], "containers": [{"name": "app"}]}));
        seconds(10).await;
        assert_eq!(lab.phase(), phase);
        assert!(!lab.is("Ready"));
        let expected = ["0 start proxy", "0 start app", "5 end app", "5 term proxy", "5 end proxy", "5 remove sandbox"];
        assert_eq!(lab.runtime.journal(), expected);
        let end = lab.container().state.and_then(|s| s.terminated).expect("an end");
        assert_eq!(end.exit_code, code);
        lab.delete(None);
        assert!(lab.gone(), "nothing is left to wait for");
    }
}

#[tokio::test(start_paused = true)]
async fn restart_on_failure_ends_with_success() {
    let lab = Lab::new();
    lab.runtime.script("app", runs(&[(1, 1), (1, 0)]));
    lab.run(json!({"restartPolicy": "OnFailure", "containers": [{"name": "app"}]}));
    seconds(5).await;
    assert_eq!((lab.phase().as_str(), lab.container().restart_count), ("Succeeded", 1));
}

#[tokio::test(start_paused = true)]
async fn a_failing_init_container_is_tried_again_with_back_off() {
    let lab = Lab::new();
    lab.runtime.script("init", runs(&[(0, 1), (0, 1), (0, 0)]));
    lab.run(json!({"initContainers": [{"name": "init"}], "containers": [{"name": "app"}]}));
    seconds(5).await;
    assert_eq!((lab.phase().as_str(), lab.runtime.times("start app").len()), ("Pending", 0));
    seconds(10).await;
    assert_eq!((lab.runtime.times("start init"), lab.runtime.times("start app")), (vec![0, 0, 10], vec![10]));
    assert!(lab.is("Ready"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_image_is_an_image_pull_back_off() {
    let lab = Lab::new();
    lab.run(json!({"containers": [{"name": "app", "image": "registry/missing:1"}]}));
    seconds(0).await;
    assert_eq!(lab.waiting().as_deref(), Some("ErrImagePull"));
    seconds(3).await;
    assert_eq!((lab.phase().as_str(), lab.waiting().as_deref()), ("Pending", Some("ImagePullBackOff")));
    let key = ("n".to_owned(), "pod".to_owned());
    lab.pods.modify(&key, |pod| pod.spec.as_mut().expect("a spec").containers[0].image = Some("good".to_owned())).expect("changed");
    seconds(1).await;
    assert!(lab.is("Ready"), "a corrected image is used at once");
    assert_eq!(lab.container().restart_count, 0);
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_key_waits_and_is_noticed_when_it_appears() {
    let lab = Lab::new();
    let from = json!({"configMapKeyRef": {"name": "settings", "key": "colour"}});
    lab.run(json!({"containers": [{"name": "app", "env": [{"name": "COLOUR", "valueFrom": from}], "args": ["--is=$(COLOUR)"]}]}));
    seconds(0).await;
    assert_eq!(lab.waiting().as_deref(), Some("CreateContainerConfigError"));
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"colour": "blue"}})).expect("a ConfigMap");
    Objects::<ConfigMap>::new(&lab.store).create("n", &map).expect("created");
    seconds(0).await;
    assert!(lab.is("Ready"));
    let spec = lab.runtime.specs().remove(0);
    assert!(spec.env.contains(&("COLOUR".to_owned(), "blue".to_owned())));
    assert_eq!(spec.args, ["--is=blue"]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_volume_source_keeps_the_pod_creating_and_changes_arrive_at_once() {
    let lab = Lab::new();
    let maps: Objects<ConfigMap> = Objects::new(&lab.store);
    lab.run(json!({
        "volumes": [{"name": "config", "configMap": {"name": "settings"}}],
        "containers": [{"name": "app", "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}]}],
    }));
    seconds(0).await;
    assert_eq!(lab.waiting().as_deref(), Some("ContainerCreating"));
    assert!(lab.reasons().contains(&"FailedMount".to_owned()));
    let map = |colour: &str| serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"colour": colour}}));
    maps.create("n", &map("blue").expect("a ConfigMap")).expect("created");
    seconds(0).await;
    assert!(lab.is("Ready"));
    let mounts = lab.runtime.specs().remove(0).mounts;
    let mount = mounts.iter().find(|m| m.target.ends_with("app")).expect("mounted");
    assert!(mount.read_only);
    let read = || std::fs::read_to_string(mount.source.join("colour")).expect("the file");
    assert_eq!(read(), "blue");
    maps.modify(&("n".to_owned(), "settings".to_owned()), |map| map.data = Some([("colour".to_owned(), "red".to_owned())].into()))
        .expect("changed");
    seconds(0).await;
    assert_eq!(read(), "red");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_does_not_exist_is_a_start_error() {
    let lab = Lab::new();
    lab.run(json!({"containers": [{"name": "app", "command": ["no-such-command"]}]}));
    seconds(1).await;
    let end = lab.container().last_state.and_then(|s| s.terminated).expect("an end");
    assert_eq!((end.exit_code, end.reason.as_deref()), (128, Some("StartError")));
    assert_eq!(lab.waiting().as_deref(), Some("CrashLoopBackOff"));
    assert!(lab.container().restart_count >= 1);
}

#[tokio::test(start_paused = true)]
async fn readiness_gates_wait_for_their_condition() {
    let lab = Lab::new();
    lab.run(json!({"readinessGates": [{"conditionType": "lb/attached"}], "containers": [{"name": "app"}]}));
    seconds(0).await;
    assert_eq!((lab.is("ContainersReady"), lab.is("Ready")), (true, false));
    let key = ("n".to_owned(), "pod".to_owned());
    lab.pods
        .modify(&key, |pod| {
            let conditions = pod.status.as_mut().expect("a status").conditions.as_mut().expect("conditions");
            conditions.push(serde_json::from_value(json!({"type": "lb/attached", "status": "True"})).expect("a condition"));
        })
        .expect("changed");
    seconds(0).await;
    assert!(lab.is("Ready"));
}

#[tokio::test(start_paused = true)]
async fn deletion_interrupts_a_pod_that_cannot_start() {
    let lab = Lab::new();
    lab.runtime.script("app", runs(&[(0, 1); 5]));
    lab.run(json!({"containers": [{"name": "app"}]}));
    seconds(2).await;
    assert_eq!(lab.waiting().as_deref(), Some("CrashLoopBackOff"));
    lab.delete(None);
    seconds(0).await;
    assert!(lab.gone());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_overruns_its_deadline_fails_and_stays() {
    let lab = Lab::new();
    lab.run(json!({"activeDeadlineSeconds": 8, "containers": [{"name": "app"}]}));
    seconds(7).await;
    assert_eq!(lab.phase(), "Running");
    seconds(2).await;
    let status = lab.pod().status.expect("a status");
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    assert_eq!(lab.runtime.journal(), ["0 start app", "8 term app", "8 end app", "8 remove sandbox"]);
    assert!(!lab.is("PodReadyToStartContainers"));
}

#[tokio::test(start_paused = true)]
async fn last_words_are_reported() {
    let lab = Lab::new();
    lab.runtime.script("app", runs(&[(5, 1)]));
    lab.run(json!({"restartPolicy": "Never", "containers": [{"name": "app"}]}));
    seconds(1).await;
    let spec = lab.runtime.specs().remove(0);
    let mount = spec.mounts.iter().find(|m| m.target.ends_with("termination-log")).expect("a place for them");
    std::fs::write(&mount.source, "no database").expect("written");
    seconds(5).await;
    let end = lab.container().state.and_then(|s| s.terminated).expect("an end");
    assert_eq!(end.message.as_deref(), Some("no database"));
}

#[tokio::test(start_paused = true)]
async fn a_host_network_pod_has_the_nodes_address() {
    let lab = Lab::new();
    lab.run(json!({"hostNetwork": true, "containers": [{"name": "app"}]}));
    seconds(1).await;
    let status = lab.pod().status.expect("a status");
    assert_eq!((status.pod_ip.is_some(), status.pod_ip), (true, status.host_ip));
}

#[tokio::test(start_paused = true)]
async fn safe_sysctls_reach_the_sandbox_and_others_fail_the_pod() {
    let pod = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}, "containers": [{"name": "app"}]});
    let lab = Lab::new();
    lab.run(pod("net.ipv4.ip_local_port_range"));
    seconds(1).await;
    assert_eq!(lab.phase(), "Running");
    let lab = Lab::new();
    lab.run(pod("kernel.panic"));
    seconds(1).await;
    let status = lab.pod().status.expect("a status");
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("SysctlForbidden")));
    assert_eq!(status.message.as_deref(), Some("Pod was rejected: forbidden sysctl: \"kernel.panic\" not allowlisted"));
    assert_eq!(lab.runtime.journal(), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_joins_its_target_once_that_runs() {
    let lab = Lab::new();
    lab.run(json!({"containers": [{"name": "app"}]}));
    seconds(1).await;
    let key = ("n".to_owned(), "pod".to_owned());
    let add = |name: &str, target: &str| {
        let ephemeral = json!({"name": name, "image": "busybox", "targetContainerName": target});
        lab.pods
            .modify(&key, |pod| {
                let spec = pod.spec.as_mut().expect("a spec");
                spec.ephemeral_containers.get_or_insert_default().push(serde_json::from_value(ephemeral.clone()).expect("a container"));
            })
            .expect("changed");
    };
    add("debugger", "app");
    seconds(1).await;
    let spec = lab.runtime.specs().into_iter().find(|spec| spec.name == "debugger").expect("started");
    assert_eq!(spec.pid_namespace_of.map(|id| id.0).as_deref(), Some("app-1"));
    add("lost", "nobody");
    seconds(1).await;
    let statuses = lab.pod().status.and_then(|s| s.ephemeral_container_statuses).unwrap_or_default();
    let lost = statuses.iter().find(|s| s.name == "lost").and_then(|s| s.state.clone()).and_then(|s| s.waiting).expect("it waits");
    assert_eq!(lost.message.as_deref(), Some("unable to find target container \"nobody\""));
}
