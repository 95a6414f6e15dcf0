//! Redirection to a sidecar.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use embedded_cluster::network::redirect::{RedirectArgs, run};
use embedded_cluster::network::{Netns, PodNetwork};
use libtest_mimic::{Failed, Trial};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::cluster::{Conversation, Outcome, connect_error, ensure, serve, serving_pod, test, two_nodes};

/// What a sidecar says it is, to be told from the application, which says its pod's address.
const SIDECAR: Ipv4Addr = Ipv4Addr::new(0, 0, 0, 6);

pub fn tests() -> Vec<Trial> {
    vec![
        test("redirects::send_what_comes_to_the_sidecar", inbound),
        test("redirects::send_what_leaves_to_the_sidecar", outbound),
        test("redirects::refuse_while_no_sidecar_listens", no_sidecar),
        test("redirects::may_be_limited_to_ports", some_ports),
        test("redirects::are_replaced_by_the_next_run", again),
    ]
}

fn arguments() -> RedirectArgs {
    RedirectArgs {
        inbound_port: 15006,
        outbound_port: 15001,
        include_inbound_ports: vec![],
        exclude_inbound_ports: vec![],
        exclude_outbound_ports: vec![],
        exclude_outbound_cidrs: vec![],
        proxy_mark: 1337,
        proxy_gid: None,
        no_outbound: false,
        no_inbound: false,
    }
}

async fn redirect(pod: &PodNetwork, arguments: RedirectArgs) -> Outcome {
    pod.netns
        .run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            runtime.block_on(run(arguments)).map_err(std::io::Error::other)
        })
        .await??;
    Ok(())
}

async fn server_at(from: &Netns, to: (Ipv4Addr, u16)) -> Result<Ipv4Addr, Failed> {
    Ok(Conversation::open(from, to.into()).await?.server)
}

async fn inbound() -> Outcome {
    let plane = two_nodes().await?;
    let pod = serving_pod(&plane, "node-0", "pod", 8080).await?;
    serve(&pod.netns, pod.ip, 9000).await?;
    serve(&pod.netns, SIDECAR, 15006).await?;
    let client = plane.attach_pod("node-1", "client").await?;
    redirect(&pod, RedirectArgs { exclude_inbound_ports: vec![9000], ..arguments() }).await?;
    ensure(server_at(&client.netns, (pod.ip, 8080)).await? == SIDECAR, "the application is reached past its sidecar")?;
    ensure(server_at(&client.netns, (pod.ip, 7)).await? == SIDECAR, "only some ports are redirected")?;
    ensure(server_at(&client.netns, (pod.ip, 9000)).await? == pod.ip, "an excluded port is redirected")?;
    // How the sidecar reaches the application.
    ensure(server_at(&pod.netns, (Ipv4Addr::LOCALHOST, 8080)).await? == pod.ip, "loopback is redirected")?;
    ensure(server_at(&pod.netns, (pod.ip, 8080)).await? == pod.ip, "the pod's own address is redirected")
}

async fn outbound() -> Outcome {
    let plane = two_nodes().await?;
    let server = serving_pod(&plane, "node-1", "server", 8080).await?;
    serve(&server.netns, server.ip, 9090).await?;
    let other = serving_pod(&plane, "node-1", "other", 8080).await?;
    let pod = plane.attach_pod("node-0", "pod").await?;
    let listener = pod.netns.tcp_listen(SocketAddr::from(([127, 0, 0, 1], 15001))).await?;
    redirect(&pod, RedirectArgs { exclude_outbound_ports: vec![9090], exclude_outbound_cidrs: vec![other.ip.into()], ..arguments() })
        .await?;
    ensure(server_at(&pod.netns, (server.ip, 9090)).await? == server.ip, "an excluded port is redirected")?;
    ensure(server_at(&pod.netns, (other.ip, 8080)).await? == other.ip, "an excluded address is redirected")?;
    let (_, accepted) = tokio::try_join!(pod.netns.tcp_connect((server.ip, 8080).into()), listener.accept())?;
    let original = getsockopt(&accepted.0, sockopt::OriginalDst)?;
    let meant = (Ipv4Addr::from(u32::from_be(original.sin_addr.s_addr)), u16::from_be(original.sin_port));
    ensure(meant == (server.ip, 8080), format!("the sidecar is told {meant:?}"))?;
    let seen = marked_connection_reaches(&pod.netns, (server.ip, 8080)).await?;
    ensure(seen, "the sidecar's own connection comes back to it")
}

/// Connects as a sidecar does, and says whether it reached the application and not the sidecar's port.
async fn marked_connection_reaches(netns: &Netns, to: (Ipv4Addr, u16)) -> Result<bool, Failed> {
    let outcome = netns
        .run(move || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            setsockopt(&socket, sockopt::Mark, &1337)?;
            socket.set_read_timeout(Some(super::cluster::SOON))?;
            socket.connect_timeout(&SocketAddr::from(to).into(), super::cluster::SOON)?;
            let mut answer = [0; 64];
            let length = std::io::Read::read(&mut std::net::TcpStream::from(socket), &mut answer)?;
            Ok::<_, std::io::Error>(answer[..length].starts_with(to.0.to_string().as_bytes()))
        })
        .await??;
    Ok(outcome)
}

async fn no_sidecar() -> Outcome {
    let plane = two_nodes().await?;
    let pod = serving_pod(&plane, "node-0", "pod", 8080).await?;
    let client = plane.attach_pod("node-1", "client").await?;
    redirect(&pod, arguments()).await?;
    let error = connect_error(&client.netns, (pod.ip, 8080).into()).await;
    ensure(error == ErrorKind::ConnectionRefused, format!("{error}"))?;
    let error = connect_error(&pod.netns, (client.ip, 8080).into()).await;
    ensure(error == ErrorKind::ConnectionRefused, format!("outbound: {error}"))
}

async fn some_ports() -> Outcome {
    let plane = two_nodes().await?;
    let pod = serving_pod(&plane, "node-0", "pod", 8080).await?;
    serve(&pod.netns, pod.ip, 9000).await?;
    serve(&pod.netns, SIDECAR, 15006).await?;
    let client = serving_pod(&plane, "node-1", "client", 8080).await?;
    redirect(&pod, RedirectArgs { include_inbound_ports: vec![8080], no_outbound: true, ..arguments() }).await?;
    ensure(server_at(&client.netns, (pod.ip, 8080)).await? == SIDECAR, "the port is not redirected")?;
    ensure(server_at(&client.netns, (pod.ip, 9000)).await? == pod.ip, "another port is redirected")?;
    ensure(server_at(&pod.netns, (client.ip, 8080)).await? == client.ip, "outbound is redirected against the wish")
}

async fn again() -> Outcome {
    let plane = two_nodes().await?;
    let pod = serving_pod(&plane, "node-0", "pod", 8080).await?;
    serve(&pod.netns, SIDECAR, 15006).await?;
    let client = plane.attach_pod("node-1", "client").await?;
    redirect(&pod, arguments()).await?;
    redirect(&pod, RedirectArgs { exclude_inbound_ports: vec![8080], ..arguments() }).await?;
    ensure(server_at(&client.netns, (pod.ip, 8080)).await? == pod.ip, "the rules of the first run are still there")
}
