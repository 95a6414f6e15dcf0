//! The `kube` crate, as the gateway agent and the harness use it.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, VersionMatch, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::lab::Lab;

pub async fn client(lab: &Lab) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::from_yaml(&lab.state.certificates.kubeconfig(&lab.server, "lab")).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

pub async fn token_client(lab: &Lab, token: &str) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut kubeconfig = Kubeconfig::from_yaml(&lab.state.certificates.kubeconfig(&lab.server, "lab")).unwrap();
    let user = kube::config::AuthInfo { token: Some(token.to_owned().into()), ..kube::config::AuthInfo::default() };
    kubeconfig.auth_infos[0].auth_info = Some(user);
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "web:1"}]}}))
    .unwrap()
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": value}})).unwrap()
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("took too long")
}

#[tokio::test]
async fn watcher_sees_list_then_changes() {
    let lab = Lab::start().await;
    let api: Api<ConfigMap> = Api::namespaced(client(&lab).await, "shop");
    api.create(&PostParams::default(), &config_map("first", "1")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = Box::pin(watcher(api.clone(), config));
        let mut seen = Vec::new();
        within(async {
            loop {
                match events.try_next().await.unwrap().unwrap() {
                    watcher::Event::InitApply(object) => seen.push(object.name_any()),
                    watcher::Event::InitDone => break,
                    _ => {}
                }
            }
            assert_eq!(seen, ["first"]);
            api.create(&PostParams::default(), &config_map("second", "2")).await.unwrap();
            let watcher::Event::Apply(object) = events.try_next().await.unwrap().unwrap() else { panic!("no change") };
            assert_eq!(object.name_any(), "second");
            api.delete("second", &DeleteParams::default()).await.unwrap();
            let watcher::Event::Delete(object) = events.try_next().await.unwrap().unwrap() else { panic!("no deletion") };
            assert_eq!(object.name_any(), "second");
        })
        .await;
    }
}

#[tokio::test]
async fn watches_with_selectors_report_entering_and_leaving() {
    let lab = Lab::start().await;
    let api: Api<ConfigMap> = Api::namespaced(client(&lab).await, "shop");
    let label = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"shown": value}}}));
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let start = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events = Box::pin(api.watch(&WatchParams::default().labels("shown=yes"), &start).await.unwrap());
    let parameters = PatchParams::default();
    api.patch("a", &parameters, &label("yes")).await.unwrap();
    api.patch("a", &parameters, &Patch::Merge(json!({"data": {"key": "2"}}))).await.unwrap();
    api.patch("a", &parameters, &label("no")).await.unwrap();
    within(async {
        assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
        assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Modified(_))));
        assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Deleted(_))));
    })
    .await;
}

#[tokio::test]
async fn all_patches_and_optimistic_concurrency() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "shop");
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}}}});
    let created = deployments.patch("web", &PatchParams::apply("first"), &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(created.spec.as_ref().unwrap().replicas, Some(1));
    assert_eq!(created.metadata.generation, Some(1));

    let strategic = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}}));
    let patched = deployments.patch("web", &PatchParams::default(), &strategic).await.unwrap();
    assert_eq!(patched.spec.unwrap().template.spec.unwrap().containers.len(), 2);
    assert_eq!(patched.metadata.generation, Some(2));

    let json_patch: json_patch::Patch = serde_json::from_value(json!([{"op": "replace", "path": "/spec/replicas", "value": 3}])).unwrap();
    let patched = deployments.patch("web", &PatchParams::default(), &Patch::Json::<()>(json_patch)).await.unwrap();
    assert_eq!(patched.spec.as_ref().unwrap().replicas, Some(3));

    let mut other = applied.clone();
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "web:2".into();
    let refused = deployments.patch("web", &PatchParams::apply("second"), &Patch::Apply(&other)).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert!(status.message.contains("conflict with \"first\": .spec.template.spec.containers[name=\"app\"].image"), "{}", status.message);

    let mut stale = patched.clone();
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}))).await.unwrap();
    stale.spec.as_mut().unwrap().replicas = Some(9);
    let refused = deployments.replace("web", &PostParams::default(), &stale).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(status.code, 409);

    let scaled = deployments.patch_scale("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 5}}))).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(5));
}

#[tokio::test]
async fn services_get_addresses_and_keep_them() {
    let lab = Lab::start().await;
    let services: Api<Service> = Api::namespaced(client(&lab).await, "shop");
    let service = |kind: &str| -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "web"}, "spec": {"type": kind, "selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        )
        .unwrap()
    };
    let created = services.create(&PostParams::default(), &service("NodePort")).await.unwrap().spec.unwrap();
    let address: std::net::Ipv4Addr = created.cluster_ip.as_ref().unwrap().parse().unwrap();
    assert_eq!(address.octets()[..2], [10, 96]);
    let node_port = created.ports.as_ref().unwrap()[0].node_port.unwrap();
    assert!((30000..=32767).contains(&node_port));
    let replaced = services.replace("web", &PostParams::default(), &service("NodePort")).await.unwrap().spec.unwrap();
    assert_eq!(replaced, created);
    let internal =
        services.patch("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"type": "ClusterIP"}}))).await.unwrap().spec.unwrap();
    assert_eq!(internal.ports.unwrap()[0].node_port, None);
    let moved = Patch::Merge(json!({"spec": {"clusterIP": "10.96.9.9"}}));
    let kube::Error::Api(status) = services.patch("web", &PatchParams::default(), &moved).await.unwrap_err() else { panic!() };
    assert_eq!(status.code, 422);
}

#[tokio::test]
async fn exec_carries_streams_and_exit_code() {
    let lab = Lab::start().await;
    let pods: Api<Pod> = Api::namespaced(client(&lab).await, "shop");
    pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    within(async {
        let parameters = AttachParams::default().stdin(true).stdout(true).stderr(true);
        let mut process = pods.exec("p", ["sh", "-c", "cat; echo done >&2; exit 3"], &parameters).await.unwrap();
        let (mut stdin, mut stdout, mut stderr) = (process.stdin().unwrap(), process.stdout().unwrap(), process.stderr().unwrap());
        let status = process.take_status().unwrap();
        let text = "line\n".repeat(20_000);
        let writing = async {
            stdin.write_all(text.as_bytes()).await.unwrap();
            stdin.shutdown().await.unwrap();
            drop(stdin);
        };
        let (mut out, mut err) = (String::new(), String::new());
        let (_, read, read_err) = tokio::join!(writing, stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
        read.unwrap();
        read_err.unwrap();
        assert_eq!(out.len(), text.len());
        assert_eq!(err, "done\n");
        let status = status.await.unwrap();
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
        assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("3"));
        process.join().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn port_forward_reaches_a_port() {
    let lab = Lab::start().await;
    let pods: Api<Pod> = Api::namespaced(client(&lab).await, "shop");
    pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    let running = Patch::Merge(json!({"status": {"phase": "Running"}}));
    pods.patch_status("p", &PatchParams::default(), &running).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut word = [0; 5];
        connection.read_exact(&mut word).await.unwrap();
        connection.write_all(&word).await.unwrap();
    });
    within(async {
        let mut forward = pods.portforward("p", &[port]).await.unwrap();
        let mut stream = forward.take_stream(port).unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"hello");
    })
    .await;
}

#[tokio::test]
async fn logs_options_reach_the_node() {
    let lab = Lab::start().await;
    let pods: Api<Pod> = Api::namespaced(client(&lab).await, "shop");
    pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    let logs = pods.logs("p", &LogParams { tail_lines: Some(1), previous: true, ..LogParams::default() }).await.unwrap();
    assert!(logs.contains("previous: true") && logs.contains("tail_lines: Some(1)"), "{logs}");
}

#[tokio::test]
async fn tokens_work_and_nothing_else_does() {
    let lab = Lab::start().await;
    let admin = client(&lab).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "shop");
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "robot"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let request = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 600}})).unwrap();
    let token = accounts.create_token_request("robot", &PostParams::default(), &request).await.unwrap().status.unwrap().token;
    let namespaces: Api<Namespace> = Api::all(token_client(&lab, &token).await);
    let kube::Error::Api(status) = namespaces.list(&ListParams::default()).await.unwrap_err() else { panic!() };
    assert_eq!(
        (status.code, status.message.as_str()),
        (
            403,
            "namespaces is forbidden: User \"system:serviceaccount:shop:robot\" cannot list resource \"namespaces\" in API group \"\" at the cluster scope"
        )
    );
    let binding: ClusterRoleBinding = serde_json::from_value(json!({"metadata": {"name": "robot"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "shop"}]}))
    .unwrap();
    Api::<ClusterRoleBinding>::all(admin).create(&PostParams::default(), &binding).await.unwrap();
    assert_eq!(namespaces.list(&ListParams::default()).await.unwrap().items.len(), 2);
    // A token dies with its account, and does not rise with another of the same name.
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let kube::Error::Api(status) = namespaces.list(&ListParams::default()).await.unwrap_err() else { panic!() };
    assert_eq!(status.code, 401);
    let refused: Api<Namespace> = Api::all(token_client(&lab, "invented").await);
    let kube::Error::Api(status) = refused.list(&ListParams::default()).await.unwrap_err() else { panic!() };
    assert_eq!((status.code, status.message.as_str()), (401, "Unauthorized"));
}

#[tokio::test]
async fn pages_are_complete_and_old_versions_are_gone() {
    let lab = Lab::start().await;
    let api: Api<ConfigMap> = Api::namespaced(client(&lab).await, "shop");
    for n in 0..25 {
        api.create(&PostParams::default(), &config_map(&format!("c{n:02}"), "x")).await.unwrap();
    }
    let (mut names, mut parameters) = (Vec::new(), ListParams::default().limit(10));
    loop {
        let page = api.list(&parameters).await.unwrap();
        names.extend(page.items.iter().map(|o| o.name_any()));
        match page.metadata.continue_ {
            Some(token) => parameters = ListParams::default().limit(10).continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names.len(), 25);
    // Pages are of one moment: what comes and goes between them does not show.
    let first = api.list(&ListParams::default().limit(10)).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    api.create(&PostParams::default(), &config_map("c99", "new")).await.unwrap();
    api.delete("c15", &DeleteParams::default()).await.unwrap();
    let rest = api.list(&ListParams::default().continue_token(&token)).await.unwrap();
    assert_eq!((rest.items.len(), rest.items.last().unwrap().name_any()), (15, "c24".to_owned()));
    assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);
    let exact = ListParams::default().at(first.metadata.resource_version.as_deref().unwrap()).matching(VersionMatch::Exact);
    assert_eq!(api.list(&exact).await.unwrap().items.len(), 25);
    for n in 0..1100 {
        api.patch("c00", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": n.to_string()}}))).await.unwrap();
    }
    let mut events = Box::pin(api.watch(&WatchParams::default(), "3").await.unwrap());
    let Some(WatchEvent::Error(status)) = within(events.next()).await.transpose().unwrap() else { panic!("not gone") };
    assert_eq!(status.code, 410);
    let kube::Error::Api(status) = api.list(&exact).await.unwrap_err() else { panic!() };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    let kube::Error::Api(status) = api.list(&ListParams::default().continue_token(&token)).await.unwrap_err() else { panic!() };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    // The refusal says how to go on all the same.
    let next = status.metadata.and_then(|metadata| metadata.continue_).unwrap();
    let rest = api.list(&ListParams::default().continue_token(&next)).await.unwrap();
    assert_eq!((rest.items.len(), rest.items.last().unwrap().name_any()), (15, "c99".to_owned()));
}

#[tokio::test]
async fn finalizers_and_dry_runs() {
    let lab = Lab::start().await;
    let api: Api<ConfigMap> = Api::namespaced(client(&lab).await, "shop");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&dry, &config_map("dry", "1")).await.unwrap();
    assert!(api.get_opt("dry").await.unwrap().is_none());

    let mut held = config_map("held", "1");
    held.metadata.finalizers = Some(vec!["gatelab.dev/test".to_owned()]);
    api.create(&PostParams::default(), &held).await.unwrap();
    let marked = api.delete("held", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    api.patch("held", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
    assert!(api.get_opt("held").await.unwrap().is_none());
}
