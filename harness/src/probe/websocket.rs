//! A WebSocket as a client uses it: handshake, a message that is to come back, silence, a close.

use std::time::Instant;

use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::failure::Failure;
use super::http::Progress;
use super::plan::WebSocketProbe;
use super::record::{Micros, Outcome, Phase, WebSocketUse};

/// RFC 6455 section 7.4.1: not sent, but what a side reports to itself.
const NO_CODE: u16 = 1005;
const NO_CLOSE_FRAME: u16 = 1006;

/// One handshake's key.
pub struct Handshake {
    key: String,
}

impl Handshake {
    #[allow(clippy::new_without_default, reason = "every key is another")]
    pub fn new() -> Self {
        Handshake { key: generate_key() }
    }

    /// Adds what makes a request a handshake (RFC 6455 section 4.1).
    pub fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if let Ok(key) = HeaderValue::from_str(&self.key) {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
    }

    /// Whether a 101 answers this handshake.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let wanted = derive_accept_key(self.key.as_bytes());
        if headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == wanted.as_bytes()) {
            return Ok(());
        }
        Err(Failure::new(Outcome::Malformed, Phase::Head, "Sec-WebSocket-Accept does not answer the key that was sent"))
    }
}

/// Uses the connection to its end. Whoever ends it before this side does has failed the attempt.
pub async fn converse(upgraded: Upgraded, probe: &WebSocketProbe, progress: &mut Progress) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
    let used = progress.websocket.insert(WebSocketUse::default());
    let result = talk(&mut socket, probe, used, begun).await;
    used.open = Micros::from(begun.elapsed());
    match result {
        Ok(()) => close(&mut socket, used).await,
        Err(failure) => Err(failure),
    }
}

async fn talk(
    socket: &mut WebSocketStream<TokioIo<Upgraded>>,
    probe: &WebSocketProbe,
    used: &mut WebSocketUse,
    begun: Instant,
) -> Result<(), Failure> {
    socket.send(Message::text(probe.message.clone())).await.map_err(|error| ended(&error, used))?;
    loop {
        let message = next(socket, used).await?;
        if message.to_text().is_ok_and(|text| text == probe.message) {
            used.echo = Some(Micros::from(begun.elapsed()));
            break;
        }
    }
    let silence = async {
        loop {
            if let Err(failure) = next(socket, used).await {
                return failure;
            }
        }
    };
    match tokio::time::timeout(probe.hold.duration(), silence).await {
        Ok(failure) => Err(failure),
        Err(_) => Ok(()),
    }
}

/// The next message; a close by the other side is a failure here. Pings are answered by the library.
async fn next(socket: &mut WebSocketStream<TokioIo<Upgraded>>, used: &mut WebSocketUse) -> Result<Message, Failure> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or(NO_CODE, |frame| frame.code.into());
                used.close_code = Some(code);
                return Err(Failure::new(Outcome::Closed, Phase::Upgraded, format!("the other side closed with code {code}")));
            }
            Some(Ok(Message::Ping(_))) => used.pings += 1,
            Some(Ok(message)) => return Ok(message),
            Some(Err(error)) => return Err(ended(&error, used)),
            None => return Err(ended(&Error::ConnectionClosed, used)),
        }
    }
}

async fn close(socket: &mut WebSocketStream<TokioIo<Upgraded>>, used: &mut WebSocketUse) -> Result<(), Failure> {
    socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await.map_err(|error| ended(&error, used))?;
    while let Some(message) = socket.next().await {
        match message {
            // What becomes of the connection after both close frames is nobody's business: Envoy keeps it for another second
            // (`delayed_close_timeout`).
            Ok(Message::Close(frame)) => {
                used.close_code = Some(frame.map_or(NO_CODE, |frame| frame.code.into()));
                return Ok(());
            }
            Ok(_) => {}
            Err(error) => return Err(ended(&error, used)),
        }
    }
    Err(ended(&Error::ConnectionClosed, used))
}

/// The connection ended without a close frame.
fn ended(error: &Error, used: &mut WebSocketUse) -> Failure {
    used.close_code = Some(NO_CLOSE_FRAME);
    match error {
        Error::Io(error) => Failure::from_io(error, Phase::Upgraded),
        error => Failure::new(Outcome::Closed, Phase::Upgraded, error.to_string()),
    }
}
