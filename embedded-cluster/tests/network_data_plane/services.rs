//! Services: who answers, who is seen, and what is refused.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use embedded_cluster::network::{DataPlane, NetworkPlan, PodNetwork, Protocol, ServicePort};
use libtest_mimic::{Failed, Trial};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::cluster::{Conversation, Outcome, SOON, connect_error, ensure, node_address, serving_pod, test, two_nodes};

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 7);

pub fn tests() -> Vec<Trial> {
    vec![
        test("services::spread_connections_over_endpoints", spread),
        test("services::without_endpoints_refuse_at_once", refuse),
        test("services::refuse_on_node_ports_too", refuse_node_port),
        test("services::that_do_not_exist_take_nothing", unallocated),
        test("services::lead_a_pod_to_itself", hairpin),
        test("services::are_reached_by_node_port_on_any_node", node_port),
        test("services::are_reached_from_nodes", from_node),
        test("services::keep_clients_with_affinity", affinity),
        test("services::follow_their_endpoints", follow),
        test("services::carry_udp", udp),
        test("services::forget_udp_endpoints_that_are_gone", udp_endpoint_gone),
        test("services::lead_to_the_control_plane", control_plane),
        test("services::apply_to_nodes_that_join_later", late_node),
        test("services::are_many", many),
    ]
}

fn service(endpoints: &[(Ipv4Addr, u16)]) -> ServicePort {
    ServicePort {
        name: "shop/cart:http".to_owned(),
        cluster_ip: CLUSTER_IP,
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        endpoints: endpoints.to_vec(),
        client_affinity: None,
    }
}

fn services(services: Vec<ServicePort>) -> NetworkPlan {
    NetworkPlan { services: services.into_iter().map(Arc::new).collect(), ..NetworkPlan::default() }
}

fn service_address() -> SocketAddr {
    (CLUSTER_IP, 80).into()
}

/// A client on node 0 and three servers on both nodes.
async fn shop(plane: &DataPlane) -> Result<(PodNetwork, Vec<(Ipv4Addr, u16)>), Failed> {
    let client = plane.attach_pod("node-0", "client").await?;
    let mut endpoints = Vec::new();
    for (name, node, port) in [("a", "node-0", 8080), ("b", "node-1", 8081), ("c", "node-1", 8082)] {
        endpoints.push((serving_pod(plane, node, name, port).await?.ip, port));
    }
    Ok((client, endpoints))
}

async fn answers(client: &PodNetwork, count: usize) -> Result<BTreeMap<Ipv4Addr, usize>, Failed> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let conversation = Conversation::open(&client.netns, service_address()).await?;
        ensure(conversation.client_seen == client.ip, "the client's address is translated")?;
        *answers.entry(conversation.server).or_default() += 1;
    }
    Ok(answers)
}

async fn spread() -> Outcome {
    let plane = two_nodes().await?;
    let (client, endpoints) = shop(&plane).await?;
    plane.apply(&services(vec![service(&endpoints)])).await?;
    let answers = answers(&client, 120).await?;
    // Each expects 40; below 10 has a probability of some 1e-11.
    ensure(answers.len() == 3 && answers.values().all(|&count| count >= 10), format!("uneven: {answers:?}"))
}

async fn refuse() -> Outcome {
    let plane = two_nodes().await?;
    let client = plane.attach_pod("node-0", "client").await?;
    plane.apply(&services(vec![service(&[])])).await?;
    let started = Instant::now();
    let error = connect_error(&client.netns, service_address()).await;
    ensure(error == ErrorKind::ConnectionRefused, format!("{error}"))?;
    ensure(started.elapsed() < SOON, "refused late")?;
    let node = plane.node("node-1").ok_or("no node")?;
    let error = connect_error(&node, service_address()).await;
    ensure(error == ErrorKind::ConnectionRefused, format!("from a node: {error}"))
}

async fn refuse_node_port() -> Outcome {
    let plane = two_nodes().await?;
    plane.apply(&services(vec![ServicePort { node_port: Some(30080), ..service(&[]) }])).await?;
    let error = connect_error(&plane.fabric(), (node_address(1), 30080).into()).await;
    ensure(error == ErrorKind::ConnectionRefused, format!("{error}"))
}

async fn unallocated() -> Outcome {
    let plane = two_nodes().await?;
    let (client, endpoints) = shop(&plane).await?;
    plane.apply(&services(vec![service(&endpoints)])).await?;
    for address in [(CLUSTER_IP, 81), (Ipv4Addr::new(10, 96, 9, 9), 80)] {
        let error = connect_error(&client.netns, address.into()).await;
        ensure(error == ErrorKind::TimedOut, format!("{address:?}: {error}"))?;
    }
    Ok(())
}

async fn hairpin() -> Outcome {
    let plane = two_nodes().await?;
    let pod = serving_pod(&plane, "node-0", "pod", 8080).await?;
    plane.apply(&services(vec![service(&[(pod.ip, 8080)])])).await?;
    let conversation = Conversation::open(&pod.netns, service_address()).await?;
    ensure(conversation.server == pod.ip, "another server answered")?;
    ensure(conversation.client_seen == node_address(0), format!("seen as {}", conversation.client_seen))
}

async fn node_port() -> Outcome {
    let plane = two_nodes().await?;
    let pod = serving_pod(&plane, "node-1", "pod", 8080).await?;
    plane.apply(&services(vec![ServicePort { node_port: Some(30080), ..service(&[(pod.ip, 8080)]) }])).await?;
    for index in 0..2 {
        let mut conversation = Conversation::open(&plane.fabric(), (node_address(index), 30080).into()).await?;
        ensure(conversation.client_seen == node_address(index), format!("seen as {}", conversation.client_seen))?;
        conversation.echo().await?;
    }
    let error = connect_error(&plane.fabric(), (node_address(0), 30081).into()).await;
    ensure(error == ErrorKind::ConnectionRefused, format!("another port of the node: {error}"))
}

async fn from_node() -> Outcome {
    let plane = two_nodes().await?;
    let pod = serving_pod(&plane, "node-1", "pod", 8080).await?;
    plane.apply(&services(vec![service(&[(pod.ip, 8080)])])).await?;
    for index in 0..2 {
        let node = plane.node(&format!("node-{index}")).ok_or("no node")?;
        let conversation = Conversation::open(&node, service_address()).await?;
        ensure(conversation.client_seen == node_address(index), format!("seen as {}", conversation.client_seen))?;
    }
    Ok(())
}

async fn affinity() -> Outcome {
    let plane = two_nodes().await?;
    let (client, endpoints) = shop(&plane).await?;
    let sticky = |endpoints: &[(Ipv4Addr, u16)]| {
        services(vec![ServicePort { client_affinity: Some(Duration::from_secs(10800)), ..service(endpoints) }])
    };
    plane.apply(&sticky(&endpoints)).await?;
    let chosen = answers(&client, 30).await?;
    ensure(chosen.len() == 1, format!("one client, several servers: {chosen:?}"))?;
    let kept = *chosen.keys().next().ok_or("nobody answered")?;
    // Another endpoint leaves: no reason to move.
    let rest: Vec<_> = endpoints.iter().copied().filter(|(address, _)| *address == kept || *address == endpoints[0].0).collect();
    plane.apply(&sticky(&rest)).await?;
    ensure(answers(&client, 10).await?.keys().eq([&kept]), "moved although its server stayed")?;
    // Different clients get different servers.
    let mut servers = std::collections::BTreeSet::new();
    plane.apply(&sticky(&endpoints)).await?;
    for index in 0..24 {
        let other = plane.attach_pod("node-0", &format!("other-{index}")).await?;
        servers.insert(Conversation::open(&other.netns, service_address()).await?.server);
    }
    ensure(servers.len() == 3, format!("new clients only reach {servers:?}"))?;
    // Its own endpoint leaves: it has to move.
    let rest: Vec<_> = endpoints.iter().copied().filter(|(address, _)| *address != kept).collect();
    plane.apply(&sticky(&rest)).await?;
    ensure(!answers(&client, 10).await?.contains_key(&kept), "kept a server that left")
}

async fn follow() -> Outcome {
    let plane = two_nodes().await?;
    let (client, endpoints) = shop(&plane).await?;
    plane.apply(&services(vec![service(&endpoints[..1])])).await?;
    let mut established = Conversation::open(&client.netns, service_address()).await?;
    plane.apply(&services(vec![service(&endpoints[1..2])])).await?;
    ensure(answers(&client, 10).await?.keys().eq([&endpoints[1].0]), "the old endpoint still answers")?;
    established.echo().await.map_err(|error| format!("an established connection broke: {error}"))?;
    // Applying the same again changes nothing; removing the Service does.
    plane.apply(&services(vec![service(&endpoints[1..2])])).await?;
    answers(&client, 1).await?;
    plane.apply(&services(vec![])).await?;
    let error = connect_error(&client.netns, service_address()).await;
    ensure(error == ErrorKind::TimedOut, format!("a deleted Service: {error}"))
}

async fn udp_server(pod: &PodNetwork, port: u16) -> Outcome {
    let socket = pod.netns.udp_bind(([0, 0, 0, 0], port).into()).await?;
    let own = pod.ip;
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((_, client)) = socket.recv_from(&mut buffer).await {
            drop(socket.send_to(own.to_string().as_bytes(), client).await);
        }
    });
    Ok(())
}

/// Asks over a socket that is kept, as resolvers do.
async fn ask(socket: &UdpSocket) -> Result<Ipv4Addr, Failed> {
    let mut buffer = [0; 64];
    socket.send(b"who is it?").await?;
    let length = timeout(SOON, socket.recv(&mut buffer)).await??;
    Ok(std::str::from_utf8(&buffer[..length])?.parse()?)
}

fn dns(endpoints: &[(Ipv4Addr, u16)]) -> NetworkPlan {
    services(vec![ServicePort { name: "kube-system/kube-dns:dns".to_owned(), protocol: Protocol::Udp, port: 53, ..service(endpoints) }])
}

async fn udp() -> Outcome {
    let plane = two_nodes().await?;
    let server = plane.attach_pod("node-1", "server").await?;
    udp_server(&server, 5353).await?;
    plane.apply(&dns(&[(server.ip, 5353)])).await?;
    let client = plane.attach_pod("node-0", "client").await?;
    let socket = client.netns.udp_bind(([0, 0, 0, 0], 0).into()).await?;
    socket.connect((CLUSTER_IP, 53)).await?;
    // The answer comes from the address that was asked: a connected socket takes no other.
    ensure(ask(&socket).await? == server.ip, "another server answered")?;
    plane.apply(&dns(&[])).await?;
    let other = client.netns.udp_bind(([0, 0, 0, 0], 0).into()).await?;
    other.connect((CLUSTER_IP, 53)).await?;
    other.send(b"?").await?;
    let error = timeout(SOON, other.recv(&mut [0; 16])).await?.map_or_else(|error| error.kind(), |_| ErrorKind::Other);
    ensure(error == ErrorKind::ConnectionRefused, format!("without endpoints: {error}"))
}

async fn udp_endpoint_gone() -> Outcome {
    let plane = two_nodes().await?;
    let mut endpoints = Vec::new();
    for name in ["old", "new"] {
        let server = plane.attach_pod("node-1", name).await?;
        udp_server(&server, 5353).await?;
        endpoints.push((server.ip, 5353));
    }
    let client = plane.attach_pod("node-0", "client").await?;
    let socket = client.netns.udp_bind(([0, 0, 0, 0], 0).into()).await?;
    socket.connect((CLUSTER_IP, 53)).await?;
    plane.apply(&dns(&endpoints[..1])).await?;
    ensure(ask(&socket).await? == endpoints[0].0, "another server answered")?;
    plane.apply(&dns(&endpoints[1..])).await?;
    ensure(ask(&socket).await? == endpoints[1].0, "a socket in use stays with an endpoint that is gone")
}

async fn control_plane() -> Outcome {
    let plane = two_nodes().await?;
    let address = Ipv4Addr::new(172, 18, 0, 1);
    super::cluster::serve(&plane.fabric(), address, 6443).await?;
    plane.apply(&services(vec![service(&[(address, 6443)])])).await?;
    let client = plane.attach_pod("node-1", "client").await?;
    ensure(Conversation::open(&client.netns, service_address()).await?.server == address, "another server answered")
}

async fn late_node() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-0", "server", 8080).await?;
    plane.apply(&services(vec![service(&[(server.ip, 8080)])])).await?;
    plane.add_node("late", node_address(7), "10.244.7.0/24".parse()?).await?;
    let client = plane.attach_pod("late", "client").await?;
    Conversation::open(&client.netns, service_address()).await?;
    Ok(())
}

/// More than fits into one netlink message for an ordinary user.
async fn many() -> Outcome {
    let plane = two_nodes().await?;
    let (client, endpoints) = shop(&plane).await?;
    let all = |count: u16| {
        let one = |index: u16| ServicePort {
            name: format!("load/service-{index}:http"),
            cluster_ip: Ipv4Addr::new(10, 96, 100 + (index / 250) as u8, (index % 250) as u8 + 1),
            node_port: Some(30000 + index),
            ..service(&endpoints)
        };
        let mut list = vec![service(&endpoints)];
        list.extend((0..count).map(one));
        services(list)
    };
    plane.apply(&all(1000)).await?;
    let last = SocketAddr::from(([10, 96, 103, 250], 80));
    Conversation::open(&client.netns, last).await?;
    Conversation::open(&plane.fabric(), (node_address(0), 30999).into()).await?;
    plane.apply(&all(10)).await?;
    ensure(connect_error(&client.netns, last).await == ErrorKind::TimedOut, "a deleted Service answers")?;
    answers(&client, 3).await?;
    Ok(())
}
