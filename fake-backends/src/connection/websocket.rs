//! A WebSocket connection: the server's side of the handshake (RFC 6455 section 4.2), then an echo until one side closes.

use std::{sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request::Parts};
use tokio::{
    io::AsyncWriteExt,
    select,
    time::{Instant, interval_at, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::{
    activity::{ClientEnd, ConnectionState},
    driver::Outcome,
    observed::{Observed, Transport},
    track::InFlight,
};
use crate::{
    backend::{Phase, Shared},
    config::WebSocket,
    journal::{ConnectionEnd, RequestEnd},
};

/// How long a close frame may take to be answered.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// What a request wants of a WebSocket endpoint.
#[derive(Debug, PartialEq)]
pub(super) enum Asks {
    /// No upgrade: an ordinary request, or one whose Upgrade and Connection headers were lost on the way.
    Nothing,
    /// A version other than 13.
    OtherVersion,
    WithoutKey,
    Upgrade {
        key: String,
    },
}

pub(super) fn asks(parts: &Parts) -> Asks {
    let has = |name: HeaderName, token: &str| {
        let values = parts.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
    };
    let http1 = parts.version == Version::HTTP_11 && parts.method == Method::GET;
    if !http1 || !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Asks::Nothing;
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Asks::OtherVersion;
    }
    match parts.headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()) {
        Some(key) => Asks::Upgrade { key: key.to_owned() },
        None => Asks::WithoutKey,
    }
}

/// What a refusal says that it wants (RFC 9110 section 15.5.22, RFC 6455 section 4.4).
pub(super) fn wanted() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers
}

/// The whole head of the answer that changes the protocol; `headers` are lines of their own.
pub(super) fn switching_protocols(key: &str, headers: &str) -> Vec<u8> {
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n{headers}\r\n"
    )
    .into_bytes()
}

/// Why an upgraded connection came to its end.
#[derive(Clone, Copy)]
enum End {
    /// Close frames went both ways.
    Agreed,
    /// The client went without one.
    ClientGone,
    /// This side went without one.
    Dropped,
}

/// Answers the handshake and echoes until the end. The request lasts as long.
pub(super) async fn serve<S: Transport>(
    shared: &Arc<Shared>,
    state: &Arc<ConnectionState>,
    mut stream: Observed<S>,
    head: &[u8],
    settings: WebSocket,
    in_flight: Option<InFlight>,
) -> Outcome {
    let mut sent = 0;
    let (end, error) = match write_head(&mut stream, head).await {
        Ok(()) => {
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            echo(shared, &mut socket, settings, &mut sent).await
        }
        Err(error) => (End::ClientGone, Some(error.to_string())),
    };
    let client_end = state.activity().client_end;
    let (request, connection) = match (end, client_end) {
        (End::Agreed, _) => (RequestEnd::Completed, ConnectionEnd::Completed),
        (End::ClientGone, Some(ClientEnd::Reset)) => (RequestEnd::ClientReset, ConnectionEnd::ClientReset),
        (End::ClientGone, Some(ClientEnd::Closed)) => (RequestEnd::ClientClosed, ConnectionEnd::ClientClosed),
        // The client is there and speaks no WebSocket.
        (End::ClientGone, None) => (RequestEnd::ServerClosed, ConnectionEnd::ProtocolError),
        (End::Dropped, _) => (RequestEnd::ServerClosed, ConnectionEnd::ServerClosed),
    };
    if let Some(mut in_flight) = in_flight {
        in_flight.ended = Some(request);
        in_flight.sent = in_flight.sent.map(|(status, _)| (status, sent));
    }
    state.flushed();
    shared.answered(state.take_uncounted());
    Outcome { ended: connection, error: error.filter(|_| connection == ConnectionEnd::ProtocolError) }
}

enum Event {
    Message(Option<Result<Message, tokio_tungstenite::tungstenite::Error>>),
    PingDue,
    CloseDue,
    Finishing,
}

async fn write_head<S: Transport>(stream: &mut Observed<S>, head: &[u8]) -> std::io::Result<()> {
    stream.write_all(head).await?;
    stream.flush().await
}

async fn echo<S: Transport>(
    shared: &Shared,
    socket: &mut WebSocketStream<Observed<S>>,
    settings: WebSocket,
    sent: &mut u64,
) -> (End, Option<String>) {
    let mut phase = shared.phases();
    let never = Duration::from_secs(86_400);
    let period = settings.ping_interval.unwrap_or(never);
    let mut pings = interval_at(Instant::now() + period, period);
    let close_at = sleep(settings.close_after.unwrap_or(never));
    tokio::pin!(close_at);
    let result = loop {
        let event = select! {
            message = socket.next() => Event::Message(message),
            _ = pings.tick() => Event::PingDue,
            () = &mut close_at => Event::CloseDue,
            _ = phase.wait_for(|phase| matches!(phase, Phase::Finishing)) => Event::Finishing,
        };
        let answer = match event {
            Event::Message(None) => return (End::Agreed, None),
            Event::Message(Some(Err(error))) => break Err(error),
            Event::Message(Some(Ok(message @ (Message::Text(_) | Message::Binary(_))))) => {
                *sent += message.len() as u64;
                message
            }
            // Pongs and the answer to a close frame are the library's own business, done at the next turn.
            Event::Message(Some(Ok(_))) => continue,
            Event::PingDue => Message::Ping(Vec::new().into()),
            Event::CloseDue => match settings.close_code {
                Some(code) => break Ok(CloseCode::from(code)),
                None => return (End::Dropped, None),
            },
            Event::Finishing => break Ok(CloseCode::Away),
        };
        if let Err(error) = socket.send(answer).await {
            break Err(error);
        }
    };
    match result {
        Ok(code) => {
            let close = async {
                socket.close(Some(CloseFrame { code, reason: "".into() })).await?;
                while let Some(message) = socket.next().await {
                    message?;
                }
                Ok::<_, tokio_tungstenite::tungstenite::Error>(())
            };
            match timeout(CLOSE_PATIENCE, close).await {
                Ok(Ok(())) => (End::Agreed, None),
                Ok(Err(_)) => (End::ClientGone, None),
                Err(_) => (End::Dropped, None),
            }
        }
        Err(error) => (End::ClientGone, Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get("/feed");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_handshake_is_told_from_other_requests() {
        let whole =
            [("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade"), ("sec-websocket-version", "13"), ("sec-websocket-key", "a")];
        assert_eq!(asks(&request(&whole)), Asks::Upgrade { key: "a".into() });
        assert_eq!(asks(&request(&whole[..3])), Asks::WithoutKey);
        assert_eq!(asks(&request(&whole[..2])), Asks::OtherVersion);
        assert_eq!(asks(&request(&whole[..1])), Asks::Nothing);
        assert_eq!(asks(&request(&whole[1..])), Asks::Nothing);
    }

    #[test]
    fn the_key_is_answered_as_in_the_rfcs_example() {
        let head = String::from_utf8(switching_protocols("dGhlIHNhbXBsZSBub25jZQ==", "x-app: shop\r\n")).unwrap();
        assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nx-app: shop\r\n\r\n"), "{head}");
    }
}
