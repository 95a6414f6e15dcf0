//! Links with latency and loss.

use std::io::ErrorKind;
use std::time::Duration;

use embedded_cluster::network::{Link, NetworkPlan, Protocol, ServicePort};
use libtest_mimic::{Failed, Trial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::cluster::{Conversation, Outcome, connect_error, ensure, node_address, serving_pod, test, two_nodes};

pub fn tests() -> Vec<Trial> {
    vec![
        test("links::delay_both_directions", latency),
        test("links::delay_only_their_node", only_their_node),
        test("links::that_lose_everything_cut_the_node_off", cut_off),
        test("links::change_under_open_connections", change),
        test("links::carry_bulk_data_in_order", bulk),
        test("links::with_impossible_loss_are_refused", impossible),
    ]
}

fn link(latency: Duration, loss: f64) -> NetworkPlan {
    NetworkPlan { links: vec![Link { node: "node-1".to_owned(), latency, loss }], ..NetworkPlan::default() }
}

const LATENCY: Duration = Duration::from_millis(40);

async fn fastest(conversation: &mut Conversation) -> Result<Duration, Failed> {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        fastest = fastest.min(conversation.echo().await?);
    }
    Ok(fastest)
}

async fn latency() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-1", "server", 8080).await?;
    let client = plane.attach_pod("node-0", "client").await?;
    plane.apply(&link(LATENCY, 0.0)).await?;
    let mut conversation = Conversation::open(&client.netns, (server.ip, 8080).into()).await?;
    let round_trip = fastest(&mut conversation).await?;
    ensure(round_trip >= 2 * LATENCY, format!("{round_trip:?} is quicker than the link"))?;
    ensure(round_trip < 6 * LATENCY, format!("{round_trip:?} is far slower than the link"))?;
    // Both ends' links count.
    let both = NetworkPlan {
        links: ["node-0", "node-1"].map(|node| Link { node: node.to_owned(), latency: LATENCY, loss: 0.0 }).to_vec(),
        ..NetworkPlan::default()
    };
    plane.apply(&both).await?;
    let round_trip = fastest(&mut conversation).await?;
    ensure(round_trip >= 4 * LATENCY, format!("{round_trip:?} is quicker than two links"))
}

async fn only_their_node() -> Outcome {
    let plane = two_nodes().await?;
    let slow = Duration::from_millis(200);
    plane.apply(&link(slow, 0.0)).await?;
    for (server, client, name) in [("node-0", "node-0", "one"), ("node-1", "node-1", "two")] {
        let server = serving_pod(&plane, server, name, 8080).await?;
        let client = plane.attach_pod(client, &format!("client-{name}")).await?;
        let mut conversation = Conversation::open(&client.netns, (server.ip, 8080).into()).await?;
        let round_trip = fastest(&mut conversation).await?;
        ensure(round_trip < slow, format!("{round_trip:?} within a node"))?;
    }
    let mut conversation =
        Conversation::open(&plane.fabric(), (serving_pod(&plane, "node-0", "server", 8080).await?.ip, 8080).into()).await?;
    ensure(fastest(&mut conversation).await? < slow, "another node's link is slow too")
}

async fn cut_off() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-1", "server", 8080).await?;
    let client = plane.attach_pod("node-0", "client").await?;
    plane.apply(&link(Duration::ZERO, 1.0)).await?;
    let error = connect_error(&client.netns, (server.ip, 8080).into()).await;
    ensure(error == ErrorKind::TimedOut, format!("{error}"))?;
    let own = plane.node("node-1").ok_or("no node")?;
    Conversation::open(&own, (server.ip, 8080).into()).await?;
    plane.apply(&NetworkPlan::default()).await?;
    Conversation::open(&client.netns, (server.ip, 8080).into()).await?;
    Ok(())
}

async fn change() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-1", "server", 8080).await?;
    let client = plane.attach_pod("node-0", "client").await?;
    // By NodePort of the client's node: translated at both ends.
    let service = ServicePort {
        name: "shop/cart:http".to_owned(),
        cluster_ip: "10.96.7.7".parse()?,
        protocol: Protocol::Tcp,
        port: 80,
        node_port: Some(30080),
        endpoints: vec![(server.ip, 8080)],
        client_affinity: None,
    };
    let plan = |latency| NetworkPlan { services: vec![service.clone().into()], ..link(latency, 0.0) };
    plane.apply(&plan(Duration::ZERO)).await?;
    let mut direct = Conversation::open(&client.netns, (server.ip, 8080).into()).await?;
    let mut by_service = Conversation::open(&client.netns, ("10.96.7.7".parse::<std::net::Ipv4Addr>()?, 80).into()).await?;
    let mut by_node_port = Conversation::open(&plane.fabric(), (node_address(0), 30080).into()).await?;
    let mut by_own_node_port = Conversation::open(&plane.fabric(), (node_address(1), 30080).into()).await?;
    for latency in [20, 5, 0, 10].map(Duration::from_millis) {
        plane.apply(&plan(latency)).await?;
        for conversation in [&mut direct, &mut by_service, &mut by_node_port, &mut by_own_node_port] {
            let round_trip = fastest(conversation).await.map_err(|error| format!("latency {latency:?}: {error:?}"))?;
            ensure(round_trip >= 2 * latency, format!("{round_trip:?} at a latency of {latency:?}"))?;
        }
    }
    Ok(())
}

async fn bulk() -> Outcome {
    const LENGTH: usize = 24 << 20;
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-1", "server", 8080).await?;
    let client = plane.attach_pod("node-0", "client").await?;
    plane.apply(&link(Duration::from_millis(1), 0.0)).await?;
    let conversation = Conversation::open(&client.netns, (server.ip, 8080).into()).await?;
    let (mut from, mut to) = conversation.stream.into_split();
    let sent: Vec<u8> = (0..LENGTH).map(|index| (index / 7) as u8).collect();
    let expected = sent.clone();
    let sender = tokio::spawn(async move { to.write_all(&sent).await });
    let mut received = vec![0; LENGTH];
    timeout(Duration::from_secs(30), from.read_exact(&mut received)).await??;
    sender.await??;
    ensure(received == expected, "what came back is not what was sent")
}

async fn impossible() -> Outcome {
    let plane = two_nodes().await?;
    match plane.apply(&link(Duration::ZERO, 1.5)).await {
        Err(error) if error.to_string().contains("1.5") => Ok(()),
        outcome => Err(Failed::from(format!("{outcome:?}"))),
    }
}
