//! Measures a lab of some size, on the machine that it runs on: `bench/scale`.
//!
//! Fifty nodes' objects (three of them real), five hundred pods (a hundred of them real processes), a thousand Services
//! with EndpointSlices, fifty watchers. Everything goes through the API, as any client would do it.
#![allow(clippy::print_stdout)] // an example talks to the person who runs it
#![allow(clippy::unwrap_used, clippy::expect_used)] // a bench that cannot go on had better stop

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use embedded_cluster::cluster::{Cluster, ClusterConfig};
use embedded_cluster::{dns, network::redirect};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};

const REAL_NODES: u8 = 3;
const NODES: usize = 50;
const REAL_PODS: usize = 100;
const PODS: usize = 500;
const SERVICES: usize = 1000;
const WATCHERS: usize = 50;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    ClusterDns(dns::DnsArgs),
    Redirect(redirect::RedirectArgs),
    /// What the real pods run: answers every connection with the pod's name.
    Answer,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let Some(code) = embedded_cluster::run_if_reexecuted() {
        return Ok(ExitCode::from(code));
    }
    let arguments = Arguments::parse();
    if matches!(arguments.command, Some(Command::Answer)) {
        answer()?;
    }
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    executor.block_on(async {
        match arguments.command {
            Some(Command::ClusterDns(args)) => dns::run(args).await?,
            Some(Command::Redirect(args)) => drop(redirect::run(args).await?),
            Some(Command::Answer) => {}
            None => measure().await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn answer() -> std::io::Result<()> {
    let name = std::fs::read_to_string("/etc/hostname")?;
    for connection in std::net::TcpListener::bind("0.0.0.0:8080")?.incoming() {
        let _ = connection?.write_all(name.as_bytes());
    }
    Ok(())
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn say(what: &str, value: impl std::fmt::Display) {
    println!("{what:<58} {value}");
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// Median and longest.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let last = times.last().copied().unwrap_or_default();
    format!("median {}, longest {}", ms(times.get(times.len() / 2).copied().unwrap_or_default()), ms(last))
}

async fn measure() -> Result<(), Box<dyn std::error::Error>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    say("cores", std::thread::available_parallelism()?);
    let began = Instant::now();
    let cluster = Cluster::start(ClusterConfig { nodes: REAL_NODES, ..ClusterConfig::new("scale") }).await?;
    say("start: API answers, 3 nodes Ready", ms(began.elapsed()));
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    say("memory of the control plane, empty", memory(cluster.pid()));
    let result = load(&client, cluster.pid()).await;
    cluster.stop().await?;
    result
}

async fn load(client: &Client, pid: i32) -> Result<(), Box<dyn std::error::Error>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let post = PostParams::default();
    for n in usize::from(REAL_NODES)..NODES {
        let node = json!({"metadata": {"name": format!("paper-{n}")}, "spec": {"unschedulable": true}});
        nodes.create(&post, &object(node)).await?;
    }
    let began = Instant::now();
    let deployment = json!({"metadata": {"name": "real"}, "spec": {"replicas": REAL_PODS, "selector": {"matchLabels": {"app": "real"}},
        "template": {"metadata": {"labels": {"app": "real"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "answer", "image": "gatelab/lab:dev", "args": ["answer"], "ports": [{"containerPort": 8080}]}]}}}});
    Api::<Deployment>::default_namespaced(client.clone()).create(&post, &object(deployment)).await?;
    let running = loop {
        let list = pods.list(&ListParams::default().labels("app=real").fields("status.phase=Running")).await?;
        if list.items.len() >= REAL_PODS {
            break list.items;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    say("100 real pods Running after", ms(began.elapsed()));
    paper_pods(&pods, PODS - REAL_PODS, 0).await?;
    let address = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
    let addresses: Vec<String> = running.iter().map(address).collect();
    services(client, &addresses, pid).await?;
    say("memory with 500 pods and 1,000 Services", memory(pid));

    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        pods.list(&ListParams::default()).await?;
        times.push(began.elapsed());
    }
    say("list of 500 pods, decoded", spread(times));
    paper_pods(&pods, 500, PODS).await?;
    say("list of 1,000 pods, bytes received", list_time(client, "/api/v1/namespaces/default/pods").await?);
    say("list of 1,000 Services, bytes received", list_time(client, "/api/v1/namespaces/default/services").await?);
    watchers(client).await?;
    say("memory with 1,000 pods, 1,000 Services, 50 watchers", memory(pid));
    data_path(client, &running, pid).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = cpu_ticks(pid);
    tokio::time::sleep(Duration::from_secs(10)).await;
    say("CPU of the control plane at rest", format!("{:.1} % of a core", (cpu_ticks(pid) - before) as f64 / 10.0));
    say("memory at rest", memory(pid));
    Ok(())
}

/// Pods of nodes that run nothing.
async fn paper_pods(pods: &Api<Pod>, count: usize, from: usize) -> kube::Result<()> {
    let create = |n: usize| async move {
        let pod = json!({"metadata": {"name": format!("paper-{n}"), "labels": {"app": format!("paper-{}", n % 40)}},
            "spec": {"nodeName": format!("paper-{}", 3 + n % 47), "containers": [{"name": "app", "image": "example/app:1",
                "env": [{"name": "A", "value": "b"}], "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}}]}});
        pods.create(&PostParams::default(), &object(pod)).await.map(drop)
    };
    futures::stream::iter(from..from + count).map(create).buffer_unordered(8).try_collect::<()>().await
}

async fn services(client: &Client, addresses: &[String], pid: i32) -> kube::Result<()> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let (services, slices) = (&services, &slices);
    let work = Work::begin(pid);
    let apply = |n: usize| async move {
        let params = PatchParams::apply("scale");
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s-{n}")},
            "spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
        services.patch(&format!("s-{n}"), &params, &Patch::Apply(service)).await.map(drop)
    };
    futures::stream::iter(0..SERVICES).map(apply).buffer_unordered(8).try_collect::<()>().await?;
    say("server-side apply of 1,000 Services", work.done());
    let work = Work::begin(pid);
    let create = |n: usize| async move {
        let endpoint = |n: usize| json!({"addresses": [addresses[n % addresses.len()]], "conditions": {"ready": true}});
        let slice = json!({"metadata": {"name": format!("s-{n}-a"), "labels": {"kubernetes.io/service-name": format!("s-{n}")}},
            "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}], "endpoints": [endpoint(n), endpoint(n + 1)]});
        slices.create(&PostParams::default(), &object(slice)).await.map(drop)
    };
    futures::stream::iter(0..SERVICES).map(create).buffer_unordered(8).try_collect::<()>().await?;
    say("1,000 EndpointSlices", work.done());
    Ok(())
}

/// What a task takes: time, which the machine's load adds to, and the control plane's CPU time, which it does not.
struct Work {
    pid: i32,
    began: Instant,
    ticks: u64,
}

impl Work {
    fn begin(pid: i32) -> Self {
        Self { pid, began: Instant::now(), ticks: cpu_ticks(pid) }
    }

    fn done(&self) -> String {
        let cpu = (cpu_ticks(self.pid) - self.ticks) as f64 / 100.0;
        format!("{} ({cpu:.2} s of CPU in the control plane)", ms(self.began.elapsed()))
    }
}

async fn list_time(client: &Client, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let (mut times, mut size) = (Vec::new(), 0);
    for _ in 0..20 {
        let request = http::Request::get(path).body(Vec::new())?;
        let began = Instant::now();
        size = client.request_text(request).await?.len();
        times.push(began.elapsed());
    }
    Ok(format!("{} ({} KiB)", spread(times), size / 1024))
}

/// From a write to the moment in which all fifty watchers have seen it.
async fn watchers(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = json!({"metadata": {"name": "watched"}, "data": {"n": "0"}});
    maps.create(&PostParams::default(), &object(map)).await?;
    let seen: Arc<Mutex<Vec<usize>>> = Arc::new(Mutex::new(vec![0; WATCHERS]));
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..WATCHERS {
        let (maps, seen) = (maps.clone(), seen.clone());
        tasks.spawn(async move {
            let mut events = Box::pin(maps.watch(&WatchParams::default(), "0").await.unwrap());
            while let Ok(Some(event)) = events.try_next().await {
                if let kube::api::WatchEvent::Modified(map) = event {
                    let n = map.data.as_ref().and_then(|data| data.get("n")).and_then(|n| n.parse().ok()).unwrap_or(0);
                    seen.lock().unwrap()[index] = n;
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut times = Vec::new();
    for n in 1..=50_usize {
        let began = Instant::now();
        maps.patch("watched", &PatchParams::default(), &Patch::Merge(json!({"data": {"n": n.to_string()}}))).await?;
        while seen.lock().unwrap().iter().any(|seen| *seen < n) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        times.push(began.elapsed());
    }
    say("write until all of 50 watchers have it", spread(times));
    Ok(())
}

/// From a changed EndpointSlice, one of a thousand, to the first packet that goes the new way: the nftables update and
/// all before it.
async fn data_path(client: &Client, running: &[Pod], pid: i32) -> Result<(), Box<dyn std::error::Error>> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let service = json!({"metadata": {"name": "moving"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "targetPort": 8080}]}});
    services.create(&PostParams::default(), &object(service)).await?;
    let slice = |pod: &Pod| {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "moving-a", "labels": {"kubernetes.io/service-name": "moving"}}, "addressType": "IPv4",
            "ports": [{"port": 8080, "protocol": "TCP"}], "endpoints": [{"addresses": [address], "conditions": {"ready": true}}]})
    };
    slices.create(&PostParams::default(), &object(slice(&running[0]))).await?;
    let address = loop {
        let service = services.get("moving").await?;
        if let Some(address) = service.annotations().get("gatelab.dev/host-address") {
            break address.rsplit('=').next().unwrap_or_default().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut times = Vec::new();
    let ticks = cpu_ticks(pid);
    for round in 0..20 {
        let pod = &running[round % 2];
        let began = Instant::now();
        slices.patch("moving-a", &PatchParams::apply("scale").force(), &Patch::Apply(slice(pod))).await?;
        loop {
            let address = address.clone();
            let answer = tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                let mut stream = std::net::TcpStream::connect(address)?;
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                stream.read_to_string(&mut text).map(|_| text)
            })
            .await?;
            if answer.is_ok_and(|name| name.trim() == pod.name_any()) {
                break;
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err("the changed EndpointSlice did not reach the kernel within 30 s".into());
            }
        }
        times.push(began.elapsed());
    }
    say("changed endpoint until packets go there (of 1,001 Services)", spread(times));
    // A tick is 10 ms; this is for 20 changes.
    say("CPU of the control plane for one changed endpoint", format!("{:.1} ms", (cpu_ticks(pid) - ticks) as f64 * 10.0 / 20.0));
    Ok(())
}

/// Proportional set size: pages that processes share count once among them.
fn memory(pid: i32) -> String {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let of = |field: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    format!("{:.1} MiB ({:.1} MiB resident)", of("Pss:") as f64 / 1024.0, of("Rss:") as f64 / 1024.0)
}

fn cpu_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2)).into_iter().flatten();
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}
