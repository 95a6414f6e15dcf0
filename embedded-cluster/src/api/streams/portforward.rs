//! Port-forward: over a WebSocket with two channels a port, or with SPDY streams.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::super::query::Query;
use super::super::respond::Body;
use super::super::route::Target;
use super::super::server::ApiState;
use super::super::status::Refusal;
use super::channels::{self, Output, V4};
use super::container::pod;
use super::spdy;
use super::upgrade::{Socket, handshake, websocket};

const SPDY: &str = "portforward.k8s.io";
/// SPDY within a WebSocket, as kubectl 1.31 and later do it.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Channels are told apart by one byte, two for each port.
const PORTS: usize = 127;
/// Messages waiting for a pod that does not read.
const WAITING: usize = 8;

pub(super) fn answer(state: Arc<ApiState>, target: &Target, query: &Query, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let pod = pod(&state, target)?;
    let name = target.object_name()?.to_owned();
    if pod["status"]["phase"] != "Running" {
        let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
        return Err(Refusal::bad_request(format!("unable to forward port because pod is not running. Current status={phase}")));
    }
    let namespace = target.namespace().unwrap_or_default().to_owned();
    let handshake = handshake(request, &[V4, TUNNEL], &[SPDY])?;
    if handshake.is_spdy {
        return Ok(handshake.accept(move |connection| streams(spdy::open(connection), state, namespace, name)));
    }
    if handshake.protocol == TUNNEL {
        return Ok(handshake.accept(move |connection| async move {
            streams(spdy::open(channels::tunnel(websocket(connection).await)), state, namespace, name).await;
        }));
    }
    let mut ports = Vec::new();
    for port in query.all("ports").flat_map(|list| list.split(',')) {
        match port.parse::<u16>() {
            Ok(port) if port > 0 && ports.len() < PORTS => ports.push(port),
            _ => return Err(Refusal::bad_request(format!("unable to parse \"{port}\" as a port"))),
        }
    }
    if ports.is_empty() {
        return Err(Refusal::bad_request("you must specify at least 1 port"));
    }
    Ok(handshake.accept(move |connection| async move { serve(websocket(connection).await, state, namespace, name, ports).await }))
}

/// kubectl's way: for each connection a pair of SPDY streams, error and data, told apart by a request id.
async fn streams(mut session: spdy::Session, state: Arc<ApiState>, namespace: String, pod: String) {
    let mut halves: HashMap<String, spdy::Stream> = HashMap::new();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = session.streams.recv() => stream,
            Some(_) = connections.join_next() => continue,
        };
        let Some(stream) = stream else { break };
        let header = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
        let (kind, port) = (header("streamtype"), header("port"));
        let id = stream.headers.get("requestid").cloned().unwrap_or_else(|| port.clone());
        let Some(other) = halves.remove(&id) else {
            if halves.len() < PORTS {
                halves.insert(id, stream);
            } else {
                stream.sender.reset().await;
            }
            continue;
        };
        let (data, error) = if kind == "data" { (stream, other) } else { (other, stream) };
        let (state, namespace, pod) = (state.clone(), namespace.clone(), pod.clone());
        connections.spawn(async move {
            let opened = match port.parse::<u16>() {
                Ok(port) => state.access.port_forward(&namespace, &pod, port).await.map_err(|error| error.to_string()),
                Err(_) => Err(format!("unable to parse \"{port}\" as a port")),
            };
            match opened {
                Ok(stream) => forward(stream, data).await,
                Err(message) => {
                    error.sender.send(message.as_bytes()).await;
                    data.sender.finish().await;
                }
            }
            error.sender.finish().await;
        });
    }
}

async fn forward(connection: tokio::net::TcpStream, mut stream: spdy::Stream) {
    let (from_pod, mut to_pod) = connection.into_split();
    let upward = async {
        Output::Spdy(stream.sender.clone()).pump(from_pod).await;
        stream.sender.finish().await;
    };
    let downward = async {
        while let Some(data) = stream.data.recv().await {
            if to_pod.write_all(&data).await.is_err() {
                return;
            }
        }
        // Both directions end on their own: half-closed connections stay so.
        let _ = to_pod.shutdown().await;
    };
    tokio::join!(upward, downward);
}

async fn serve(socket: Socket, state: Arc<ApiState>, namespace: String, pod: String, ports: Vec<u16>) {
    let (sender, mut receiver, _writer) = channels::open(socket);
    let mut connections = tokio::task::JoinSet::new();
    let mut inputs = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let Ok(data) = u8::try_from(index * 2) else { break };
        let (input, received) = mpsc::channel::<bytes::Bytes>(WAITING);
        inputs.push(Some(input));
        let (state, namespace, pod, sender) = (state.clone(), namespace.clone(), pod.clone(), sender.clone());
        connections.spawn(async move {
            // Each channel begins with its port, little-endian (kubelet's websocket port-forward).
            let hello = port.to_le_bytes();
            for channel in [data, data + 1] {
                if sender.send(channels::message(channel, &hello)).await.is_err() {
                    return;
                }
            }
            let refused = match state.access.port_forward(&namespace, &pod, port).await {
                Ok(stream) => {
                    connection(stream, data, &sender, received).await;
                    return;
                }
                Err(error) => error.to_string(),
            };
            let _ = sender.send(channels::message(data + 1, refused.as_bytes())).await;
        });
    }
    drop(sender);
    loop {
        tokio::select! {
            received = receiver.next() => {
                let Some(received) = received else { break };
                let slot = inputs.get_mut(usize::from(received.channel / 2));
                if let Some(slot) = slot
                    && received.channel.is_multiple_of(2)
                    && let Some(input) = slot
                    && input.send(received.data).await.is_err()
                {
                    *slot = None;
                }
            }
            ended = connections.join_next() => {
                if ended.is_none() {
                    break;
                }
            }
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, channel: u8, sender: &channels::Sender, mut input: mpsc::Receiver<bytes::Bytes>) {
    let (from_pod, mut to_pod) = stream.into_split();
    let output = Output::WebSocket(channel, sender.clone());
    let upward = output.pump(from_pod);
    let downward = async {
        while let Some(data) = input.recv().await {
            if to_pod.write_all(&data).await.is_err() {
                return;
            }
        }
    };
    // The pod's end of data ends the connection: the protocol has no half-closing of a channel.
    tokio::select! {
        () = upward => {}
        () = async { downward.await; std::future::pending::<()>().await } => {}
    }
}
