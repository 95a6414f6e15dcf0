//! NetworkPolicies: what is dropped, what passes, and that nothing else notices.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use embedded_cluster::network::{Allow, DataPlane, Isolation, NetworkPlan, PodIsolation, PodNetwork, PortRange, Protocol, ServicePort};
use ipnet::Ipv4Net;
use libtest_mimic::{Failed, Trial};

use super::cluster::{Conversation, Outcome, connect_error, ensure, serve, serving_pod, test, two_nodes};

pub fn tests() -> Vec<Trial> {
    vec![
        test("policies::drop_on_the_servers_side", || ingress("node-1")),
        test("policies::drop_between_pods_of_one_node", || ingress("node-0")),
        test("policies::never_drop_what_the_node_sends", own_node),
        test("policies::leave_established_connections_alone", established),
        test("policies::let_isolated_pods_be_answered", answered),
        test("policies::drop_on_the_clients_side", egress),
        test("policies::need_both_sides_to_agree", both_sides),
        test("policies::except_ranges_from_ranges", excepted),
        test("policies::know_ports_and_protocols", ports),
        test("policies::see_the_pod_behind_a_service", behind_service),
        test("policies::never_keep_a_pod_from_itself", itself),
        test("policies::go_when_they_are_removed", removed),
    ]
}

fn isolate(pod: Ipv4Addr, ingress: Isolation, egress: Isolation) -> NetworkPlan {
    NetworkPlan { isolations: vec![PodIsolation { pod, ingress, egress }], ..NetworkPlan::default() }
}

fn only_from(peers: Option<Vec<(Ipv4Net, Vec<Ipv4Net>)>>, ports: Option<Vec<PortRange>>) -> Isolation {
    Isolation::Only(vec![Allow { peers, ports }])
}

fn host(address: Ipv4Addr) -> (Ipv4Net, Vec<Ipv4Net>) {
    (Ipv4Net::from(address), Vec::new())
}

async fn passes(from: &PodNetwork, to: (Ipv4Addr, u16)) -> Outcome {
    Conversation::open(&from.netns, to.into()).await.map_err(|error| format!("{} to {to:?}: {error}", from.ip))?;
    Ok(())
}

/// A drop is silence: no refusal, no unreachable.
async fn dropped(from: &PodNetwork, to: (Ipv4Addr, u16)) -> Outcome {
    let error = connect_error(&from.netns, to.into()).await;
    ensure(error == ErrorKind::TimedOut, format!("{} to {to:?}: {error} instead of silence", from.ip))
}

/// A server on node 0 and two clients on `node`.
async fn three(plane: &DataPlane, node: &str) -> Result<(PodNetwork, PodNetwork, PodNetwork), Failed> {
    let server = serving_pod(plane, "node-0", "server", 8080).await?;
    Ok((server, plane.attach_pod(node, "friend").await?, plane.attach_pod(node, "stranger").await?))
}

async fn ingress(clients: &'static str) -> Outcome {
    let plane = two_nodes().await?;
    let (server, friend, stranger) = three(&plane, clients).await?;
    passes(&stranger, (server.ip, 8080)).await?;
    plane.apply(&isolate(server.ip, only_from(Some(vec![host(friend.ip)]), None), Isolation::Open)).await?;
    passes(&friend, (server.ip, 8080)).await?;
    dropped(&stranger, (server.ip, 8080)).await?;
    passes(&stranger, (serving_pod(&plane, "node-0", "other", 8080).await?.ip, 8080)).await
}

async fn own_node() -> Outcome {
    let plane = two_nodes().await?;
    let (server, _, _) = three(&plane, "node-1").await?;
    plane.apply(&isolate(server.ip, Isolation::Only(vec![]), Isolation::Only(vec![]))).await?;
    let own = plane.node("node-0").ok_or("no node")?;
    Conversation::open(&own, (server.ip, 8080).into()).await?;
    let other = plane.node("node-1").ok_or("no node")?;
    let error = connect_error(&other, (server.ip, 8080).into()).await;
    ensure(error == ErrorKind::TimedOut, format!("another node: {error}"))
}

async fn established() -> Outcome {
    let plane = two_nodes().await?;
    let (server, friend, _) = three(&plane, "node-1").await?;
    let mut conversation = Conversation::open(&friend.netns, (server.ip, 8080).into()).await?;
    plane.apply(&isolate(server.ip, Isolation::Only(vec![]), Isolation::Only(vec![]))).await?;
    conversation.echo().await?;
    dropped(&friend, (server.ip, 8080)).await
}

async fn answered() -> Outcome {
    let plane = two_nodes().await?;
    let (server, friend, _) = three(&plane, "node-1").await?;
    // The server may send nothing on its own, but its answers pass.
    plane.apply(&isolate(server.ip, Isolation::Open, Isolation::Only(vec![]))).await?;
    passes(&friend, (server.ip, 8080)).await?;
    serve(&friend.netns, friend.ip, 9090).await?;
    dropped(&server, (friend.ip, 9090)).await
}

async fn egress() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-0", "server", 8080).await?;
    let other = serving_pod(&plane, "node-1", "other", 8080).await?;
    let client = plane.attach_pod("node-1", "client").await?;
    plane.apply(&isolate(client.ip, Isolation::Open, only_from(Some(vec![host(server.ip)]), None))).await?;
    passes(&client, (server.ip, 8080)).await?;
    dropped(&client, (other.ip, 8080)).await
}

async fn both_sides() -> Outcome {
    let plane = two_nodes().await?;
    let (server, friend, _) = three(&plane, "node-0").await?;
    let may_send = PodIsolation { pod: friend.ip, ingress: Isolation::Open, egress: only_from(Some(vec![host(server.ip)]), None) };
    let takes_nothing = PodIsolation { pod: server.ip, ingress: Isolation::Only(vec![]), egress: Isolation::Open };
    plane.apply(&NetworkPlan { isolations: vec![may_send.clone(), takes_nothing], ..NetworkPlan::default() }).await?;
    dropped(&friend, (server.ip, 8080)).await?;
    plane.apply(&NetworkPlan { isolations: vec![may_send], ..NetworkPlan::default() }).await?;
    passes(&friend, (server.ip, 8080)).await
}

async fn excepted() -> Outcome {
    let plane = two_nodes().await?;
    let (server, friend, stranger) = three(&plane, "node-1").await?;
    let range = ("10.244.0.0/16".parse()?, vec![Ipv4Net::from(stranger.ip)]);
    plane.apply(&isolate(server.ip, only_from(Some(vec![range]), None), Isolation::Open)).await?;
    passes(&friend, (server.ip, 8080)).await?;
    dropped(&stranger, (server.ip, 8080)).await?;
    let everyone = ("0.0.0.0/0".parse()?, vec!["10.244.1.0/24".parse()?]);
    plane.apply(&isolate(server.ip, only_from(Some(vec![everyone]), None), Isolation::Open)).await?;
    dropped(&friend, (server.ip, 8080)).await?;
    passes(&plane.attach_pod("node-0", "neighbour").await?, (server.ip, 8080)).await?;
    let nobody = ("0.0.0.0/0".parse()?, vec!["0.0.0.0/0".parse()?]);
    plane.apply(&isolate(server.ip, only_from(Some(vec![nobody]), None), Isolation::Open)).await?;
    dropped(&friend, (server.ip, 8080)).await
}

async fn ports() -> Outcome {
    let plane = two_nodes().await?;
    let (server, friend, stranger) = three(&plane, "node-1").await?;
    for port in [8081, 8090, 8091, 53] {
        serve(&server.netns, server.ip, port).await?;
    }
    let range = |protocol, first, last| PortRange { protocol, first, last };
    let ports = vec![range(Protocol::Tcp, 8081, 8090), range(Protocol::Udp, 53, 53)];
    plane.apply(&isolate(server.ip, only_from(Some(vec![host(friend.ip)]), Some(ports)), Isolation::Open)).await?;
    passes(&friend, (server.ip, 8081)).await?;
    passes(&friend, (server.ip, 8090)).await?;
    tokio::try_join!(
        dropped(&friend, (server.ip, 8080)),
        dropped(&friend, (server.ip, 8091)),
        dropped(&friend, (server.ip, 53)),
        dropped(&stranger, (server.ip, 8081)),
    )?;
    Ok(())
}

async fn behind_service() -> Outcome {
    let plane = two_nodes().await?;
    let (server, friend, stranger) = three(&plane, "node-1").await?;
    let cluster_ip = Ipv4Addr::new(10, 96, 7, 7);
    let service = ServicePort {
        name: "shop/cart:http".to_owned(),
        cluster_ip,
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        endpoints: vec![(server.ip, 8080)],
        client_affinity: None,
    };
    let port = PortRange { protocol: Protocol::Tcp, first: 8080, last: 8080 };
    let plan = isolate(server.ip, only_from(Some(vec![host(friend.ip)]), Some(vec![port])), Isolation::Open);
    plane.apply(&NetworkPlan { services: vec![service.into()], ..plan }).await?;
    passes(&friend, (cluster_ip, 80)).await?;
    dropped(&stranger, (cluster_ip, 80)).await
}

async fn itself() -> Outcome {
    let plane = two_nodes().await?;
    let (server, _, _) = three(&plane, "node-1").await?;
    let plan = isolate(server.ip, Isolation::Only(vec![]), Isolation::Only(vec![]));
    let service = ServicePort {
        name: "shop/cart:http".to_owned(),
        cluster_ip: Ipv4Addr::new(10, 96, 7, 7),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        endpoints: vec![(server.ip, 8080)],
        client_affinity: None,
    };
    plane.apply(&NetworkPlan { services: vec![service.into()], ..plan }).await?;
    passes(&server, (Ipv4Addr::new(10, 96, 7, 7), 80)).await
}

async fn removed() -> Outcome {
    let plane = two_nodes().await?;
    let (server, friend, _) = three(&plane, "node-1").await?;
    plane.apply(&isolate(server.ip, Isolation::Only(vec![]), Isolation::Open)).await?;
    dropped(&friend, (server.ip, 8080)).await?;
    plane.apply(&NetworkPlan::default()).await?;
    passes(&friend, (server.ip, 8080)).await
}
