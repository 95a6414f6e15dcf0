//! Pods reach each other, whatever node they are on.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use libtest_mimic::{Failed, Trial};

use super::cluster::{Conversation, Outcome, connect_error, ensure, node_address, serving_pod, test, two_nodes};

pub fn tests() -> Vec<Trial> {
    vec![
        test("pods::on_different_nodes_see_each_others_address", different_nodes),
        test("pods::on_one_node_see_each_others_address", same_node),
        test("pods::are_reached_from_nodes_and_the_control_plane", from_nodes),
        test("pods::reach_the_control_plane", to_the_control_plane),
        test("pods::have_a_loopback_of_their_own", loopback),
        test("pods::that_are_detached_are_gone", detached),
        test("pods::are_attached_once", attached_once),
        test("pods::leave_with_their_node", node_removed),
    ]
}

async fn different_nodes() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-1", "server", 8080).await?;
    let client = plane.attach_pod("node-0", "client").await?;
    ensure(client.ip.octets()[..3] == [10, 244, 0], format!("{} is not of node-0's range", client.ip))?;
    let conversation = Conversation::open(&client.netns, (server.ip, 8080).into()).await?;
    ensure(conversation.server == server.ip && conversation.client_seen == client.ip, "addresses are translated")
}

async fn same_node() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-0", "server", 8080).await?;
    let client = plane.attach_pod("node-0", "client").await?;
    let conversation = Conversation::open(&client.netns, (server.ip, 8080).into()).await?;
    ensure(conversation.server == server.ip && conversation.client_seen == client.ip, "addresses are translated")
}

async fn from_nodes() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-0", "server", 8080).await?;
    for (netns, address) in [
        (plane.node("node-0"), node_address(0)),
        (plane.node("node-1"), node_address(1)),
        (Some(plane.fabric()), Ipv4Addr::new(172, 18, 0, 1)),
    ] {
        let netns = netns.ok_or("no such node")?;
        let conversation = Conversation::open(&netns, (server.ip, 8080).into()).await?;
        ensure(conversation.client_seen == address, format!("seen as {}, not as {address}", conversation.client_seen))?;
    }
    Ok(())
}

async fn to_the_control_plane() -> Outcome {
    let plane = two_nodes().await?;
    let address = Ipv4Addr::new(172, 18, 0, 1);
    super::cluster::serve(&plane.fabric(), address, 6443).await?;
    let client = plane.attach_pod("node-1", "client").await?;
    let conversation = Conversation::open(&client.netns, (address, 6443).into()).await?;
    ensure(conversation.client_seen == client.ip, "the control plane sees another address than the pod's")
}

async fn loopback() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-0", "server", 8080).await?;
    let other = plane.attach_pod("node-0", "other").await?;
    let localhost = SocketAddr::from(([127, 0, 0, 1], 8080));
    Conversation::open(&server.netns, localhost).await?;
    ensure(connect_error(&other.netns, localhost).await == ErrorKind::ConnectionRefused, "another pod's loopback answers")
}

async fn detached() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-0", "server", 8080).await?;
    let client = plane.attach_pod("node-1", "client").await?;
    Conversation::open(&client.netns, (server.ip, 8080).into()).await?;
    plane.detach_pod("server").await?;
    let error = connect_error(&client.netns, (server.ip, 8080).into()).await;
    ensure(error != ErrorKind::Other, "a detached pod still answers")?;
    plane.detach_pod("server").await?;
    let next = plane.attach_pod("node-0", "next").await?;
    ensure(next.ip != server.ip, "the address is reused at once")?;
    ensure(plane.pod("server").is_none(), "a detached pod is still listed")
}

async fn attached_once() -> Outcome {
    let plane = two_nodes().await?;
    let (first, second) = tokio::join!(plane.attach_pod("node-0", "pod"), plane.attach_pod("node-0", "pod"));
    ensure(first?.ip == second?.ip, "one pod has two addresses")?;
    ensure(plane.attach_pod("node-1", "pod").await.is_err(), "one pod is on two nodes")?;
    match plane.attach_pod("node-9", "other").await {
        Err(error) if error.to_string().contains("node-9") => Ok(()),
        outcome => Err(Failed::from(format!("unknown node: {outcome:?}"))),
    }
}

async fn node_removed() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-1", "server", 8080).await?;
    let client = plane.attach_pod("node-0", "client").await?;
    plane.remove_node("node-1").await?;
    ensure(connect_error(&client.netns, (server.ip, 8080).into()).await != ErrorKind::Other, "a pod of a removed node answers")?;
    ensure(plane.node("node-1").is_none() && plane.pod("server").is_none(), "a removed node is still listed")?;
    plane.add_node("node-1", node_address(1), "10.244.1.0/24".parse()?).await?;
    let server = serving_pod(&plane, "node-1", "server", 8080).await?;
    Conversation::open(&client.netns, (server.ip, 8080).into()).await?;
    Ok(())
}
