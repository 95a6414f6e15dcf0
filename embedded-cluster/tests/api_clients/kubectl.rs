//! kubectl, whichever is on PATH. Without one the tests say that they are skipped.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::lab::Lab;

pub const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: app, image: 'web:1', ports: [{containerPort: 8080, name: http}]}
      - {name: side, image: 'side:1'}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: tools, namespace: shop, labels: {app: tools}}
spec:
  containers: [{name: sh, image: 'busybox:1.36'}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  ingressClassName: nginx
  rules:
  - host: shop.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
";

pub struct Kubectl {
    folder: tempfile::TempDir,
    pub lab: Lab,
}

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Kubectl {
    /// `None` when there is no kubectl.
    pub async fn new() -> Option<Self> {
        let found = Command::new("kubectl").args(["version", "--client"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no working kubectl on PATH");
            return None;
        }
        let lab = Lab::start().await;
        let folder = tempfile::tempdir().unwrap();
        lab.write_kubeconfig(folder.path());
        std::fs::write(folder.path().join("shop.yaml"), SHOP).unwrap();
        Some(Self { folder, lab })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub async fn run(&self, arguments: &str) -> Ran {
        self.run_with(arguments, "", &[]).await
    }

    /// Runs one command line; words are separated by spaces, `'…'` groups.
    pub async fn run_with(&self, arguments: &str, stdin: &str, environment: &[(&str, &str)]) -> Ran {
        let mut command = Command::new("kubectl");
        command.args(words(arguments)).current_dir(self.path());
        command.env("KUBECONFIG", self.path().join("kubeconfig")).env("HOME", self.path()).envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let stdin = stdin.to_owned();
        let output: Output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs a command that must succeed, and returns its output.
    pub async fn ok(&self, arguments: &str) -> String {
        let ran = self.run(arguments).await;
        assert_eq!(ran.code, 0, "kubectl {arguments}\n{}\n{}", ran.out, ran.err);
        ran.out
    }

    /// Runs a command that must fail, and returns what it complains.
    pub async fn refused(&self, arguments: &str) -> String {
        let ran = self.run(arguments).await;
        assert_ne!(ran.code, 0, "kubectl {arguments}\n{}\n{}", ran.out, ran.err);
        ran.err
    }
}

fn words(line: &str) -> Vec<String> {
    line.split('\'').enumerate().fold(Vec::new(), |mut words, (index, part)| {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
        words
    })
}

/// Columns of a table: its header's words.
fn header(table: &str) -> Vec<&str> {
    table.lines().next().unwrap_or_default().split("  ").map(str::trim).filter(|w| !w.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_in_every_form() {
    let Some(kubectl) = Kubectl::new().await else { return };
    let applied = kubectl.ok("apply -f shop.yaml").await;
    assert_eq!(applied, "deployment.apps/web created\nservice/web created\npod/tools created\ningress.networking.k8s.io/web created\n");
    assert!(kubectl.ok("apply -f shop.yaml").await.lines().all(|line| line.ends_with(" unchanged")));

    let pods = kubectl.ok("get pods -n shop -o wide").await;
    assert_eq!(header(&pods), ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"]);
    assert!(pods.contains("tools   0/1     Pending   0"), "{pods}");
    let deployments = kubectl.ok("get deploy -n shop").await;
    assert_eq!(header(&deployments), ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
    assert!(kubectl.ok("get ing,svc -A").await.contains("shop.example"));
    assert_eq!(kubectl.ok("get pods -n shop -l app=tools -o name").await, "pod/tools\n");
    assert_eq!(kubectl.ok("get pods -n shop -l 'app notin (tools)' -o name").await, "");
    assert_eq!(kubectl.ok("get pods -A --field-selector status.phase=Pending -o name").await, "pod/tools\n");
    assert_eq!(kubectl.ok("get pods -n shop --field-selector status.phase=Running -o name").await, "");
    assert!(kubectl.ok("get pods -n shop --show-labels").await.contains("app=tools"));
    assert!(kubectl.ok("get deploy -n shop --sort-by .metadata.name").await.contains("web"));
    assert_eq!(kubectl.ok("get deploy web -n shop -o 'jsonpath={.spec.template.spec.containers[*].name}'").await, "app side");
    assert_eq!(kubectl.ok("get svc web -n shop -o 'custom-columns=P:.spec.ports[0].targetPort' --no-headers").await, "http\n");
    let yaml = kubectl.ok("get svc web -n shop -o yaml").await;
    assert!(yaml.contains("clusterIP: 10.96.") && yaml.contains("kind: Service") && !yaml.contains("managedFields"), "{yaml}");
    assert!(kubectl.ok("get svc web -n shop -o yaml --show-managed-fields").await.contains("manager: kubectl-client-side-apply"));
    assert!(kubectl.ok("get --raw /healthz").await.contains("ok"));
    assert!(kubectl.ok("describe deploy web -n shop").await.contains("RollingUpdateStrategy:  25% max unavailable, 25% max surge"));
    assert!(kubectl.ok("describe svc web -n shop").await.contains("TargetPort:"));
    assert!(kubectl.ok("describe pod tools -n shop").await.contains("QoS Class:"));
    assert!(kubectl.ok("describe ingress web -n shop").await.contains("shop.example"));
    assert!(kubectl.ok("api-versions").await.contains("networking.k8s.io/v1"));
    assert!(kubectl.ok("version").await.contains("+gatelab"));
    assert_eq!(kubectl.ok("auth can-i create pods").await, "yes\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_by_every_means() {
    let Some(kubectl) = Kubectl::new().await else { return };
    kubectl.ok("apply -f shop.yaml").await;
    let image = "get deploy web -n shop -o 'jsonpath={.spec.template.spec.containers[*].image}'";

    std::fs::write(kubectl.path().join("shop.yaml"), SHOP.replace("web:1", "web:2")).unwrap();
    assert!(kubectl.ok("apply -f shop.yaml").await.contains("deployment.apps/web configured"));
    assert_eq!(kubectl.ok(image).await, "web:2 side:1");
    let without_side = SHOP.replace("      - {name: side, image: 'side:1'}\n", "");
    std::fs::write(kubectl.path().join("shop.yaml"), without_side).unwrap();
    kubectl.ok("apply -f shop.yaml").await;
    assert_eq!(kubectl.ok(image).await, "web:1", "apply removes what it had set");

    kubectl.ok("set image deploy/web -n shop app=web:3").await;
    kubectl.ok(r#"patch deploy web -n shop -p '{"spec":{"template":{"spec":{"containers":[{"name":"extra","image":"extra:1"}]}}}}'"#).await;
    let images = kubectl.ok(image).await;
    let mut images: Vec<_> = images.split(' ').collect();
    images.sort_unstable();
    assert_eq!(images, ["extra:1", "web:3"]);
    kubectl.ok(r#"patch deploy web -n shop --type=merge -p '{"spec":{"paused":true}}'"#).await;
    kubectl.ok(r#"patch svc web -n shop --type=json -p '[{"op":"replace","path":"/spec/ports/0/targetPort","value":8081}]'"#).await;
    assert_eq!(kubectl.ok("get svc web -n shop -o 'jsonpath={.spec.ports[0].targetPort}'").await, "8081");
    let edited = kubectl.run_with("edit svc web -n shop", "", &[("KUBE_EDITOR", "sed -i s/targetPort:.*/targetPort:\\ 8082/")]).await;
    assert_eq!(edited.code, 0, "{}", edited.err);
    assert_eq!(kubectl.ok("get svc web -n shop -o 'jsonpath={.spec.ports[0].targetPort}'").await, "8082");
    kubectl.ok("scale deploy web -n shop --replicas=5").await;
    assert_eq!(kubectl.ok("get deploy web -n shop -o 'jsonpath={.spec.replicas}'").await, "5");
    kubectl.ok("label pod tools -n shop app=other --overwrite").await;
    kubectl.ok("annotate pod tools -n shop note=yes").await;
    assert_eq!(kubectl.ok("get pods -n shop -l app=other -o name").await, "pod/tools\n");
    kubectl.ok("rollout resume deploy/web -n shop").await;
    kubectl.ok("rollout restart deploy/web -n shop").await;
    kubectl.ok("delete pod tools -n shop --now").await;
    assert!(kubectl.refused("get pod tools -n shop").await.contains("Error from server (NotFound): pods \"tools\" not found"));
    kubectl.ok("delete -f shop.yaml --ignore-not-found").await;
    assert_eq!(kubectl.run("get all -n shop").await.err, "No resources found in shop namespace.\n");
    kubectl.ok("apply -f shop.yaml --dry-run=server").await;
    assert_eq!(kubectl.run("get all -n shop").await.err, "No resources found in shop namespace.\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_from_the_command_line() {
    let Some(kubectl) = Kubectl::new().await else { return };
    kubectl.ok("create namespace lab").await;
    kubectl.ok("create configmap settings -n lab --from-literal=a=b").await;
    kubectl.ok("create secret generic keys -n lab --from-literal=k=v").await;
    kubectl.ok("create deployment web -n lab --image=web:1 --replicas=2 --port=80").await;
    kubectl.ok("expose deployment web -n lab --port=80").await;
    kubectl.ok("run debug -n lab --image=curlimages/curl -- curl -v http://web").await;
    kubectl.ok("create ingress web -n lab --class=nginx '--rule=shop.example/*=web:80'").await;
    kubectl.ok("create serviceaccount robot -n lab").await;
    assert_eq!(kubectl.ok("get cm settings -n lab -o 'jsonpath={.data.a}'").await, "b");
    assert_eq!(
        kubectl.ok("get deploy web -n lab -o 'jsonpath={.spec.replicas}{.spec.template.spec.containers[0].ports[0].containerPort}'").await,
        "280"
    );
    assert_eq!(kubectl.ok("create token robot -n lab").await.matches('.').count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_refused_in_kubernetes_words() {
    let Some(kubectl) = Kubectl::new().await else { return };
    assert!(kubectl.refused("get colours").await.contains("the server doesn't have a resource type \"colours\""));
    let apply = |text: &str| {
        std::fs::write(kubectl.path().join("bad.yaml"), text).unwrap();
        kubectl.refused("apply -f bad.yaml")
    };
    let unknown = SHOP.replace("replicas: 2", "replicaz: 2");
    let complaint = apply(&unknown).await;
    assert!(complaint.contains("strict decoding error: unknown field \"spec.replicaz\""), "{complaint}");
    let complaint = apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: Bad_Name, namespace: shop}}").await;
    assert!(
        complaint.contains("ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain"),
        "{complaint}"
    );
    let complaint = apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: nowhere}}").await;
    assert!(complaint.contains("namespaces \"nowhere\" not found"), "{complaint}");
    let complaint = apply("{apiVersion: v1, kind: Service, metadata: {name: a, namespace: shop}, spec: {ports: [{port: 0}]}}").await;
    assert!(complaint.contains("spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"), "{complaint}");
    let complaint = apply("{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: a}}").await;
    assert!(complaint.contains("no matches for kind \"Gateway\" in version \"gateway.networking.k8s.io/v1\""), "{complaint}");

    kubectl.ok("apply -f shop.yaml").await;
    let complaint = kubectl.refused(r#"patch deploy web -n shop -p '{"spec":{"selector":{"matchLabels":{"a":"b"}}}}'"#).await;
    assert!(complaint.contains("spec.selector: Invalid value:") && complaint.contains("field is immutable"), "{complaint}");
    let complaint = kubectl.refused(r#"patch pod tools -n shop -p '{"spec":{"terminationGracePeriodSeconds":5}}'"#).await;
    assert!(complaint.contains("spec: Forbidden: pod updates may not change fields other than"), "{complaint}");
    assert!(kubectl.refused("create ns shop").await.contains("(AlreadyExists): namespaces \"shop\" already exists"));
    let ran = kubectl.run_with("apply --server-side --field-manager=other -f -", &SHOP.replace("web:1", "web:9"), &[]).await;
    assert!(ran.err.contains("conflict with \"kubectl-client-side-apply\""), "{}", ran.err);
    let ran =
        kubectl.run_with("apply --server-side --force-conflicts --field-manager=other -f -", &SHOP.replace("web:1", "web:9"), &[]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looks_inside_pods() {
    let Some(kubectl) = Kubectl::new().await else { return };
    kubectl.ok("apply -f shop.yaml").await;
    assert!(kubectl.ok("logs tools -n shop").await.starts_with("first line of shop/tools\n"));
    assert_eq!(kubectl.ok("logs tools -n shop --tail=1").await.lines().count(), 1);
    assert!(kubectl.refused("logs tools -n shop -c nobody").await.contains("container nobody is not valid for pod tools"));
    let ran = kubectl.run("exec -n shop tools -- sh -c 'echo out; echo err >&2; exit 7'").await;
    assert_eq!((ran.code, ran.out.as_str()), (7, "out\n"));
    assert!(ran.err.starts_with("err\n"), "{}", ran.err);
    let ran = kubectl.run_with("exec -i -n shop tools -- cat", "through and through", &[]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "through and through"));
    assert!(kubectl.refused("exec -n shop nobody -- ls").await.contains("pods \"nobody\" not found"));
    assert!(kubectl.refused("exec -n shop tools -- no-such-command").await.contains("no-such-command"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_ports() {
    let Some(kubectl) = Kubectl::new().await else { return };
    kubectl.ok("apply -f shop.yaml").await;
    kubectl.ok(r#"patch pod tools -n shop --subresource=status --type=merge -p '{"status":{"phase":"Running"}}'"#).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = connection.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
            });
        }
    });
    let mut command = tokio::process::Command::new("kubectl");
    command.args(["port-forward", "-n", "shop", "pod/tools", &format!(":{port}")]).kill_on_drop(true);
    command.env("KUBECONFIG", kubectl.path().join("kubeconfig")).env("HOME", kubectl.path()).stdout(Stdio::piped());
    let mut forwarding = command.spawn().unwrap();
    let mut lines = BufReader::new(forwarding.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.unwrap().unwrap().unwrap();
    let local = line.strip_prefix("Forwarding from ").unwrap().split(" -> ").next().unwrap().to_owned();
    for _ in 0..3 {
        let mut stream = tokio::net::TcpStream::connect(&local).await.unwrap();
        let sent = vec![7; 300_000];
        let mut received = Vec::new();
        let (mut from, mut to) = stream.split();
        let writing = async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let both = async { tokio::join!(writing, from.read_to_end(&mut received)).1 };
        tokio::time::timeout(Duration::from_secs(20), both).await.unwrap().unwrap();
        assert_eq!(received, sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_and_waits() {
    let Some(kubectl) = Kubectl::new().await else { return };
    kubectl.ok("apply -f shop.yaml").await;
    let waiting = kubectl.run("wait pod/tools -n shop '--for=jsonpath={.status.phase}=Running' --timeout=20s");
    let running = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let pods = embedded_cluster::store::Resource::of::<k8s_openapi::api::core::v1::Pod>();
        let change = |pod: &mut serde_json::Value| {
            pod["status"]["phase"] = "Running".into();
            Ok(())
        };
        kubectl.lab.store.modify(&pods, Some("shop"), "tools", change).unwrap();
    };
    let (waited, ()) = tokio::join!(waiting, running);
    assert_eq!((waited.code, waited.out.as_str()), (0, "pod/tools condition met\n"), "{}", waited.err);
    let deleting = kubectl.run("delete pod tools -n shop");
    let watching = kubectl.run("wait pod/tools -n shop --for=delete --timeout=20s");
    let (deleted, watched) = tokio::join!(deleting, watching);
    assert_eq!(deleted.code, 0, "{}", deleted.err);
    assert!(watched.code == 0 || watched.err.contains("not found"), "{}", watched.err);
}
