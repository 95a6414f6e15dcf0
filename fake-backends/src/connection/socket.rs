//! A new connection: what `accept` and `tls` make of it before HTTP begins.

use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering};

use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    activity::ConnectionState,
    driver::{Outcome, drive},
};
use crate::{
    backend::{Active, Shared},
    config::{Accept, Handshake, PlainHttp, Protocol},
    journal::{ConnectionEnd, ConnectionEntry, Recorded, TlsOutcome},
    misbehaviour::{reset, silent},
};

/// Which port a connection came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Main,
    /// Plain HTTP, health endpoints only, always served.
    Health,
}

/// Serves one connection to its end and records it.
pub(crate) async fn serve(shared: Arc<Shared>, role: Role, stream: TcpStream, peer: SocketAddr) {
    let opened = tokio::time::Instant::now();
    // Small writes go out at once, as in every HTTP server.
    let _ = stream.set_nodelay(true);
    let id = shared.journal.next_connection();
    let entry = ConnectionEntry {
        seq: 0,
        time: jiff::Timestamp::now(),
        connection: id,
        peer,
        local: stream.local_addr().unwrap_or(peer),
        tls: None,
        requests: 0,
        health_requests: 0,
        bytes_in: 0,
        bytes_out: 0,
        unread_bytes: 0,
        ended: None,
        duration: None,
        error: None,
    };
    let state = Arc::new(ConnectionState::new(id, Recorded::begin(&shared.journal, entry)));
    shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
    shared.metrics.connections_open.fetch_add(1, Ordering::Relaxed);
    let outcome = match role {
        Role::Main => main_port(&shared, &state, stream).await,
        Role::Health => drive(&shared, &state, role, Protocol::Http1, stream).await,
    };
    shared.metrics.connection_ended(outcome.ended);
    let (bytes_in, bytes_out) = {
        let activity = state.activity();
        (activity.bytes_in, activity.bytes_out)
    };
    state.record.update(|entry| {
        entry.bytes_in = bytes_in;
        entry.bytes_out = bytes_out;
        entry.duration = Some(opened.elapsed());
        entry.error = outcome.error;
        entry.ended = Some(outcome.ended);
    });
}

async fn main_port(shared: &Arc<Shared>, state: &Arc<ConnectionState>, stream: TcpStream) -> Outcome {
    let active = shared.active();
    match active.config.server.accept {
        Accept::Serve => handshake(shared, &active, state, stream).await,
        Accept::Silent => stay_silent(state, stream).await,
        Accept::Reset => {
            let error = reset::arm(&stream).err().map(|error| error.to_string());
            drop(stream);
            Outcome { ended: ConnectionEnd::ServerReset, error }
        }
        // A connection that was accepted in the instant the setting changed.
        Accept::Refuse | Accept::Never => Outcome { ended: ConnectionEnd::ServerClosed, error: None },
    }
}

async fn handshake(shared: &Arc<Shared>, active: &Active, state: &Arc<ConnectionState>, stream: TcpStream) -> Outcome {
    let server = &active.config.server;
    let (Some(tls), Some(config)) = (&active.config.tls, &active.tls) else {
        return drive(shared, state, Role::Main, server.protocol, stream).await;
    };
    if tls.handshake == Handshake::Stalled {
        state.record.update(|entry| entry.tls = Some(TlsOutcome::Stalled));
        return stay_silent(state, stream).await;
    }
    // A TLS connection begins with a handshake record, type 22 (RFC 8446 section 5.1).
    let mut first = [0];
    let is_tls = match stream.peek(&mut first).await {
        Ok(0) => return Outcome { ended: ConnectionEnd::ClientClosed, error: None },
        Ok(_) => first[0] == 22,
        Err(error) => return Outcome { ended: ConnectionEnd::ClientReset, error: Some(error.to_string()) },
    };
    if !is_tls && tls.plain_http == PlainHttp::BadRequest {
        return refuse_plain_http(state, stream).await;
    }
    match TlsAcceptor::from(config.clone()).accept(stream).await {
        Ok(accepted) => {
            let session = accepted.get_ref().1;
            let alpn = session.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned());
            let outcome = TlsOutcome::Complete {
                version: session.protocol_version().map_or_else(|| "unknown".to_owned(), |version| format!("{version:?}")),
                alpn: alpn.clone(),
                server_name: session.server_name().map(ToString::to_string),
            };
            state.record.update(|entry| entry.tls = Some(outcome));
            let protocol = match alpn.as_deref() {
                Some("h2") => Protocol::H2,
                Some("http/1.1" | "http/1.0") => Protocol::Http1,
                _ => server.protocol,
            };
            drive(shared, state, Role::Main, protocol, accepted).await
        }
        Err(error) => {
            let outcome = if is_tls { TlsOutcome::Failed { error: error.to_string() } } else { TlsOutcome::NotTls };
            state.record.update(|entry| entry.tls = Some(outcome));
            Outcome { ended: ConnectionEnd::TlsFailed, error: is_tls.then(|| error.to_string()) }
        }
    }
}

async fn stay_silent(state: &ConnectionState, mut stream: TcpStream) -> Outcome {
    let (bytes, result) = silent::listen_only(&mut stream).await;
    state.activity().bytes_in = bytes;
    let ended = if result.is_ok() { ConnectionEnd::ClientClosed } else { ConnectionEnd::ClientReset };
    Outcome { ended, error: None }
}

/// What nginx (error 497) and Go's net/http do with plain HTTP on a TLS port.
async fn refuse_plain_http(state: &ConnectionState, mut stream: TcpStream) -> Outcome {
    const ANSWER: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
        Client sent an HTTP request to an HTTPS server.\n";
    state.record.update(|entry| entry.tls = Some(TlsOutcome::NotTls));
    let result = async {
        stream.write_all(ANSWER.as_bytes()).await?;
        stream.shutdown().await
    };
    let error = result.await.err().map(|error| error.to_string());
    state.activity().bytes_out = ANSWER.len() as u64;
    // Read on until the client closes: closing over its unread request would reset the answer away.
    let (bytes, _) = silent::listen_only(&mut stream).await;
    state.activity().bytes_in = bytes;
    Outcome { ended: ConnectionEnd::TlsFailed, error }
}
