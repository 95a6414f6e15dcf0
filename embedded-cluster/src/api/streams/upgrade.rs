//! From an HTTP request to a WebSocket with one of Kubernetes' subprotocols.

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

/// A WebSocket handshake that can be answered.
pub(super) struct Handshake {
    upgrade: OnUpgrade,
    response: Response<Body>,
}

/// # Errors
/// 400 when the request is no WebSocket handshake or offers none of `protocols` (the most wanted first).
pub(super) fn handshake(mut request: Request<Incoming>, protocols: &[&'static str]) -> Result<Handshake, Refusal> {
    let headers = request.headers();
    let is_websocket = headers.get(UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_websocket);
    let Some(key) = key else {
        return Err(Refusal::bad_request("Upgrade request required: this API server streams over WebSocket only"));
    };
    let offered = offered(headers);
    let protocol = protocols.iter().find(|protocol| offered.iter().any(|o| o == *protocol)).ok_or_else(|| {
        Refusal::bad_request(format!("none of the offered subprotocols is served here; served are: {}", protocols.join(", ")))
    })?;
    let mut response = Response::new(respond::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(Refusal::internal)?;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(Handshake { upgrade: hyper::upgrade::on(&mut request), response })
}

fn offered(headers: &HeaderMap) -> Vec<String> {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(|p| p.trim().to_owned()).collect()
}

impl Handshake {
    /// Answers the handshake and lets `serve` have the socket as soon as the client has the answer.
    pub fn accept<F>(self, serve: impl FnOnce(Socket) -> F + Send + 'static) -> Response<Body>
    where
        F: Future<Output = ()> + Send,
    {
        let upgrade = self.upgrade;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => {
                    let mut config = WebSocketConfig::default();
                    config.max_message_size = Some(MESSAGE);
                    config.max_frame_size = Some(MESSAGE);
                    config.max_write_buffer_size = 4 * MESSAGE;
                    serve(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await).await;
                }
                Err(error) => tracing::debug!(%error, "a client went away during its WebSocket handshake"),
            }
        });
        self.response
    }
}
