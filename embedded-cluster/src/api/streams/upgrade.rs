//! From an HTTP request to a WebSocket or a SPDY connection, with one of Kubernetes' subprotocols.

use std::sync::Arc;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::super::kinds::Sub;
use super::super::query::Query;
use super::super::respond::{self, Body};
use super::super::route::Target;
use super::super::server::ApiState;
use super::super::status::Refusal;
use super::{exec, portforward};

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How SPDY clients offer subprotocols, one header each.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// kubectl sends stdin in pieces of 32 KiB; nothing honest is larger than this.
const MESSAGE: usize = 1024 * 1024;

pub(crate) async fn upgrade(
    state: Arc<ApiState>,
    target: &Target,
    sub: Sub,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    match sub {
        Sub::PortForward => portforward::answer(state, target, query, request),
        _ => exec::answer(state, target, sub == Sub::Attach, query, request).await,
    }
    .map_err(|refusal| refusal.about(&target.kind, target.name.as_deref()))
}

/// An upgrade that can be answered, to a protocol that both sides know.
pub(super) struct Handshake {
    pub protocol: &'static str,
    pub is_spdy: bool,
    upgrade: OnUpgrade,
    response: Response<Body>,
}

/// # Errors
/// 400 when the request is no upgrade to a WebSocket with one of `websocket`, nor to SPDY with one of `spdy` (the most
/// wanted first).
pub(super) fn handshake(mut request: Request<Incoming>, websocket: &[&'static str], spdy: &[&'static str]) -> Result<Handshake, Refusal> {
    let headers = request.headers();
    let wanted = headers.get(UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_lowercase();
    let mut response = Response::new(respond::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let is_spdy = wanted == "spdy/3.1";
    let protocol = if is_spdy {
        let protocol = chosen(headers, STREAM_PROTOCOL, spdy)?;
        answer.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        answer.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
        protocol
    } else {
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| wanted == "websocket");
        let key = key.ok_or_else(|| Refusal::bad_request("Upgrade request required"))?;
        let protocol = chosen(headers, SEC_WEBSOCKET_PROTOCOL.as_str(), websocket)?;
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(Refusal::internal)?;
        answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        protocol
    };
    Ok(Handshake { protocol, is_spdy, upgrade: hyper::upgrade::on(&mut request), response })
}

/// The first protocol of ours that the client offers.
fn chosen(headers: &HeaderMap, name: &str, ours: &[&'static str]) -> Result<&'static str, Refusal> {
    let lists = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    let offered: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
    ours.iter()
        .find(|protocol| offered.contains(protocol))
        .copied()
        .ok_or_else(|| Refusal::bad_request(format!("unable to negotiate protocol: client supports {offered:?}, server supports {ours:?}")))
}

impl Handshake {
    /// Answers, and lets `serve` have the connection as soon as the client has the answer.
    pub fn accept<F>(self, serve: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static) -> Response<Body>
    where
        F: Future<Output = ()> + Send,
    {
        let upgrade = self.upgrade;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
                Err(error) => tracing::debug!(%error, "a client went away during its upgrade"),
            }
        });
        self.response
    }
}

/// The WebSocket over an upgraded connection.
pub(super) async fn websocket(connection: TokioIo<Upgraded>) -> Socket {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE);
    config.max_frame_size = Some(MESSAGE);
    config.max_write_buffer_size = 4 * MESSAGE;
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}
