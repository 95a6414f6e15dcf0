//! A lab does what it is for: a Deployment behind a Service answers on the host's loopback; and two labs know nothing of
//! each other.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use embedded_cluster::cluster::{Cluster, ClusterConfig};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use libtest_mimic::Trial;
use serde_json::json;

use crate::executor;

pub fn tests() -> Vec<Trial> {
    vec![Trial::test("two_labs_serve_side_by_side", || {
        executor().block_on(side_by_side());
        Ok(())
    })]
}

/// Container command: answers every connection with the text.
pub fn answer(port: &str, text: &str) -> ExitCode {
    let listener = std::net::TcpListener::bind(("0.0.0.0", port.parse().unwrap())).unwrap();
    for mut connection in listener.incoming().flatten() {
        // Read first: closing with unread bytes would be a reset.
        let _ = connection.read(&mut [0; 1]);
        let _ = connection.write_all(text.as_bytes());
    }
    ExitCode::SUCCESS
}

async fn side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let config = |name: &str| ClusterConfig { state_dir: Some(folder.path().join(name)), ..ClusterConfig::new(name) };
    let (one, two) = tokio::join!(Cluster::start(config("one")), Cluster::start(config("two")));
    let (one, two) = (one.unwrap(), two.unwrap());
    let (first, second) = (client(one.kubeconfig()).await, client(two.kubeconfig()).await);
    // The same node port in both: on the host, one of them has to step aside.
    for (client, text) in [(&first, "one"), (&second, "two")] {
        deploy(client, text).await;
    }
    let (first_address, second_address) = (host_address(&first).await, host_address(&second).await);
    assert_ne!(first_address, second_address);
    within("the first answers", || answers(first_address, "one")).await;
    within("the second answers", || answers(second_address, "two")).await;
    one.stop().await.unwrap();
    assert!(TcpStream::connect(first_address).is_err());
    assert!(answers(second_address, "two").await, "the other lab is left alone");
    let nodes = Api::<Node>::all(second).list(&ListParams::default()).await.unwrap();
    assert_eq!(nodes.items.len(), 2);
    two.stop().await.unwrap();
}

async fn client(kubeconfig: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

async fn deploy(client: &kube::Client, text: &str) {
    let labels = json!({"app": "answer"});
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "answer"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": "gatelab/lab:dev", "command": ["/gatelab", "answer", "8080", text]}]},
        }},
    }))
    .unwrap();
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "answer"},
        "spec": {"type": "NodePort", "selector": labels, "ports": [{"name": "main", "port": 80, "targetPort": 8080, "nodePort": 31999}]},
    }))
    .unwrap();
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &deployment).await.unwrap();
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &service).await.unwrap();
}

async fn host_address(client: &kube::Client) -> SocketAddr {
    let services = Api::<Service>::default_namespaced(client.clone());
    let mut found = None;
    for _ in 0..1000 {
        let service = services.get("answer").await.unwrap();
        found = service.metadata.annotations.unwrap_or_default().get("gatelab.dev/host-address").cloned();
        if found.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    found.expect("the host address is written to the Service").strip_prefix("main=").unwrap().parse().unwrap()
}

async fn answers(address: SocketAddr, text: &'static str) -> bool {
    let asking = tokio::task::spawn_blocking(move || {
        let mut connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        connection.write_all(b"?")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    });
    asking.await.unwrap().is_ok_and(|answer| answer == text)
}

async fn within<F: Future<Output = bool>>(what: &str, mut reached: impl FnMut() -> F) {
    let waiting = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("not in 30 s: {what}"));
}
