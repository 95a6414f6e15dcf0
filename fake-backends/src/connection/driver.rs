//! Runs hyper on a connection, and ends the connection from outside when a timer, a limit or a takeover says so.

use std::{pin::pin, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep_until},
};

use super::{
    Role,
    activity::{ClientEnd, ConnectionState, Takeover, Then},
    observed::{Slot, Transport},
    service::{Context, respond},
    websocket,
};
use crate::{
    backend::{Phase, Shared},
    config::{Close, Protocol, Server},
    journal::ConnectionEnd,
    misbehaviour::{close_after_requests, idle_close, reset},
};

/// How long a GOAWAY may take to be answered before the socket is closed all the same.
const GOAWAY_PATIENCE: Duration = Duration::from_secs(1);

const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// How a connection ended, and the error that ended it.
pub(crate) struct Outcome {
    pub(crate) ended: ConnectionEnd,
    pub(crate) error: Option<String>,
}

pub(crate) async fn drive<S: Transport>(
    shared: &Arc<Shared>,
    state: &Arc<ConnectionState>,
    role: Role,
    protocol: Protocol,
    stream: S,
) -> Outcome {
    let mut settings = shared.settings();
    let mut phase = shared.phases();
    let slot = Slot::new(stream);
    let context = Context { shared: shared.clone(), state: state.clone(), role };
    let builder = builder(protocol, &shared.active().config.server);
    let service = service_fn(move |request| respond(context.clone(), request));
    // Not `serve_connection_with_upgrades`: it forgets which protocol the builder was told to speak (hyper-util 0.1).
    let connection = builder.serve_connection(TokioIo::new(slot.observed(state.clone())), service).into_owned();
    let mut connection = Box::pin(connection);
    let mut finishing = false;
    let mut patience: Option<idle_close::Due> = None;
    let mut parse_error = None;
    let mut settle = false;
    let mut upgraded = None;

    let (ended, close, bytes) = loop {
        // The health port has no timers of its own.
        let active = shared.active();
        let server = &active.config.server;
        let due = match patience {
            Some(due) => Some(due),
            None if role == Role::Main => idle_close::due(&state.activity(), server),
            None => None,
        };
        let timer = pin!(sleep_until(due.map_or_else(far_future, |due| due.at)));
        tokio::select! {
            // Timers before I/O, in this order on every turn: see idle_close.
            biased;
            () = timer, if due.is_some() => {
                let Some(due) = due else { continue };
                if state.activity().http2 && due.close == Close::Fin && patience.is_none() {
                    // HTTP/2 servers announce the end (RFC 9113 section 6.8), so that no request is lost.
                    state.activity().closing = Some(due.ended);
                    connection.as_mut().graceful_shutdown();
                    patience = Some(idle_close::Due { at: Instant::now() + GOAWAY_PATIENCE, ..due });
                    continue;
                }
                break (due.ended, due.close, Vec::new());
            }
            () = state.changed.notified() => {
                shared.answered(state.take_uncounted());
                settle = state.awaits_flush();
                let mut activity = state.activity();
                if let Some(Takeover { bytes, then }) = activity.takeover.take() {
                    let close = match then {
                        Then::Close(close) => close,
                        Then::WebSocket(settings, in_flight) => {
                            upgraded = Some((settings, in_flight));
                            Close::Fin
                        }
                    };
                    break (if close == Close::Fin { ConnectionEnd::ServerClosed } else { ConnectionEnd::ServerReset }, close, bytes);
                }
                if role == Role::Main && close_after_requests::close_now(server, activity.flushed) {
                    break (ConnectionEnd::RequestLimit, Close::Fin, Vec::new());
                }
                if std::mem::take(&mut activity.goaway) {
                    drop(activity);
                    connection.as_mut().graceful_shutdown();
                }
            }
            _ = phase.wait_for(|phase| matches!(phase, Phase::Finishing)), if !finishing => {
                finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            // Settings have changed: the timer is set anew.
            changed = settings.changed() => if changed.is_err() { break (ConnectionEnd::Shutdown, Close::Fin, Vec::new()) },
            result = connection.as_mut() => {
                shared.answered(state.take_uncounted());
                let outcome = ended_by_hyper(state, finishing, result);
                if outcome.ended == ConnectionEnd::ProtocolError && protocol == Protocol::Http1 && state.activity().bytes_out == 0 {
                    // hyper says nothing to an HTTP/2 preface; HTTP/1.1 servers call it a bad request.
                    parse_error = outcome.error;
                    break (outcome.ended, Close::Fin, BAD_REQUEST.to_vec());
                }
                return outcome;
            }
            // Last, so that the connection has been polled, and with it flushed, by the time this is ready.
            () = tokio::task::yield_now(), if settle => {
                settle = false;
                state.flushed();
            }
        }
    };

    if let Some((settings, in_flight)) = upgraded {
        // What hyper has read is the request and nothing else: a client sends no frame before it has the answer (RFC 6455 section 4.1).
        drop(connection);
        return websocket::serve(shared, state, slot.observed(state.clone()), &bytes, settings, in_flight).await;
    }
    state.activity().closing = Some(ended);
    // From here on the socket is ours alone.
    let stream = slot.take();
    drop(connection);
    let error = match stream {
        Some(stream) => close_stream(state, stream, close, &bytes).await.err().map(|error| error.to_string()),
        None => None,
    };
    Outcome { ended, error: parse_error.or(error) }
}

fn builder(protocol: Protocol, server: &Server) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Timeouts are the driver's business.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder.http2().timer(TokioTimer::new());
    if let Some(streams) = server.h2_max_concurrent_streams {
        builder.http2().max_concurrent_streams(streams);
    }
    match protocol {
        Protocol::Auto => builder,
        Protocol::Http1 => builder.http1_only(),
        Protocol::H2 => builder.http2_only(),
    }
}

async fn close_stream<S: Transport>(state: &ConnectionState, mut stream: S, close: Close, bytes: &[u8]) -> std::io::Result<()> {
    if !bytes.is_empty() {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        state.activity().bytes_out += bytes.len() as u64;
    }
    let unread = reset::unread(stream.tcp());
    state.record.update(|entry| entry.unread_bytes = unread);
    match close {
        // No shutdown(2) and no TLS close_notify: close(2) alone, so that late bytes meet a socket that is gone.
        Close::Fin => {}
        Close::Reset => {
            reset::delivered(stream.tcp()).await;
            reset::arm(stream.tcp())?;
        }
    }
    drop(stream);
    Ok(())
}

fn ended_by_hyper(state: &ConnectionState, finishing: bool, result: Result<(), Box<dyn std::error::Error + Send + Sync>>) -> Outcome {
    let activity = state.activity();
    let error = result.err();
    let ended = match (activity.closing, activity.client_end) {
        (Some(ended), _) => ended,
        (None, Some(ClientEnd::Reset)) => ConnectionEnd::ClientReset,
        (None, Some(ClientEnd::Closed)) => ConnectionEnd::ClientClosed,
        (None, None) if error.is_some() => ConnectionEnd::ProtocolError,
        (None, None) if finishing => ConnectionEnd::Shutdown,
        (None, None) => ConnectionEnd::Completed,
    };
    // A client that goes is no error; hyper reports it as one when it was in the middle of something.
    let error = error.filter(|_| ended == ConnectionEnd::ProtocolError).map(|error| error.to_string());
    Outcome { ended, error }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
