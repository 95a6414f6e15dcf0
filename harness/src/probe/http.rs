//! One HTTP request at a time (HTTP/1.1, HTTP/2, gRPC, or a WebSocket's handshake) over connections that the probe itself opens, keeps and counts. hyper's connection-level
//! client is used rather than a pooling one: a pool retries and reconnects in silence, which is what the probe is to show.

use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::dns::Resolver;
use super::failure::Failure;
use super::plan::{Connection, HttpProbe, Protocol};
use super::record::{ConnectionUse, GrpcEnd, Micros, Outcome, Phase, Timings, WebSocketUse};
use super::{tcp, tls, websocket};

/// A probe's open connections and what every request has in common.
pub struct HttpClient {
    probe: HttpProbe,
    resolver: Resolver,
    request: RequestParts,
    idle: Mutex<Vec<Open>>,
    opened: AtomicU32,
}

struct RequestParts {
    method: Method,
    target: Uri,
    headers: HeaderMap,
    body: Bytes,
}

struct Open {
    sender: Sender,
    used: ConnectionUse,
}

/// A connection of either version.
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    fn is_ready(&self) -> bool {
        match self {
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender) => sender.is_ready(),
        }
    }

    async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }
}

/// What one attempt has met so far; kept by the caller, so that a passed deadline loses none of it.
pub struct Progress {
    pub phase: Phase,
    pub timings: Timings,
    pub connection: Option<ConnectionUse>,
    pub status: Option<u16>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub body_length: u64,
    pub body_hash: Sha256,
    pub addresses: Vec<String>,
    pub websocket: Option<WebSocketUse>,
    pub grpc: Option<GrpcEnd>,
}

impl Progress {
    pub fn new(due: Instant) -> Self {
        let timings = Timings { started: Micros::from(due.elapsed()), ..Timings::default() };
        Progress {
            phase: Phase::Queued,
            timings,
            connection: None,
            status: None,
            headers: Vec::new(),
            body: Vec::new(),
            body_length: 0,
            body_hash: Sha256::new(),
            addresses: Vec::new(),
            websocket: None,
            grpc: None,
        }
    }
}

impl HttpClient {
    /// Fails when the plan's method, target or headers cannot be sent.
    pub fn new(probe: HttpProbe, resolver: Resolver) -> Result<Self, Failure> {
        let request = RequestParts::new(&probe)?;
        Ok(HttpClient { probe, resolver, request, idle: Mutex::new(Vec::new()), opened: AtomicU32::new(0) })
    }

    /// Connections opened so far.
    pub fn opened(&self) -> u32 {
        self.opened.load(Ordering::Relaxed)
    }

    pub async fn attempt(&self, request_id: Uuid, due: Instant, progress: &mut Progress) -> Result<(), Failure> {
        let mut open = match self.take_idle() {
            Some(open) => open,
            None => self.open(due, progress).await?,
        };
        progress.connection = Some(open.used.clone());
        open.used.requests_before += 1;
        progress.phase = Phase::Head;
        if self.probe.protocol == Protocol::Grpc {
            progress.grpc = Some(GrpcEnd::default());
        }
        let handshake = self.probe.websocket.as_ref().map(|_| websocket::Handshake::new());
        progress.websocket = handshake.as_ref().map(|_| WebSocketUse::default());
        let request = self.request.build(request_id, handshake.as_ref());
        let mut response = open.sender.send(request).await.map_err(|error| Failure::from_hyper(&error, Phase::Head))?;
        progress.timings.first_byte = Some(Micros::from(due.elapsed()));
        progress.status = Some(response.status().as_u16());
        progress.headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        note_grpc_end(response.headers(), progress);
        if let (Some(handshake), Some(probe)) = (&handshake, &self.probe.websocket)
            && response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            handshake.check(response.headers())?;
            let upgraded = hyper::upgrade::on(&mut response).await.map_err(|error| Failure::from_hyper(&error, Phase::Head))?;
            progress.phase = Phase::Upgraded;
            websocket::converse(upgraded, probe, progress).await?;
            progress.phase = Phase::Done;
            return Ok(());
        }
        progress.phase = Phase::Body;
        self.read_body(response.into_body(), progress).await?;
        progress.phase = Phase::Done;
        if self.probe.connection == Connection::Reuse {
            self.keep(open).await;
        }
        Ok(())
    }

    /// Latest put back, first taken: what pools do, so that surplus connections fall idle.
    fn take_idle(&self) -> Option<Open> {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while let Some(open) = idle.pop() {
            // The peer's close has been seen: any client would open a new connection here (RFC 9112, 9.5).
            if open.sender.is_ready() {
                return Some(open);
            }
        }
        None
    }

    async fn keep(&self, mut open: Open) {
        // Not ready means that the response closed the connection (`Connection: close`, or no length).
        if open.sender.ready().await.is_ok() {
            self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(open);
        }
    }

    async fn open(&self, due: Instant, progress: &mut Progress) -> Result<Open, Failure> {
        let id = self.opened.fetch_add(1, Ordering::Relaxed);
        let stream = tcp::connect(&self.probe.address, &self.resolver, due, &mut progress.timings, &mut progress.phase).await?;
        let phase = progress.phase;
        let ends =
            stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?))).map_err(|error| Failure::from_io(&error, phase))?;
        let used = ConnectionUse { id, requests_before: 0, local: ends.0, remote: ends.1 };
        progress.connection = Some(used.clone());
        let http2 = self.probe.protocol != Protocol::Http1;
        let sender = match &self.probe.tls {
            None => handshake(TokioIo::new(stream), http2).await?,
            Some(client) => {
                progress.phase = Phase::Tls;
                let stream = tls::handshake(client, if http2 { b"h2" } else { b"http/1.1" }, stream).await?;
                progress.timings.tls_done = Some(Micros::from(due.elapsed()));
                if http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(Failure::new(Outcome::TlsFailed, Phase::Tls, "the other side does not choose h2 by ALPN"));
                }
                handshake(TokioIo::new(stream), http2).await?
            }
        };
        Ok(Open { sender, used })
    }

    async fn read_body(&self, mut body: Incoming, progress: &mut Progress) -> Result<(), Failure> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::from_hyper(&error, Phase::Body))?;
            if let Some(trailers) = frame.trailers_ref() {
                note_grpc_end(trailers, progress);
            }
            if let Some(data) = frame.data_ref() {
                progress.body_length += data.len() as u64;
                progress.body_hash.update(data);
                let room = self.probe.body_kept.saturating_sub(progress.body.len());
                progress.body.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        Ok(())
    }
}

/// A gRPC call's status stands in the trailers, or in the headers when there is no message.
fn note_grpc_end(headers: &HeaderMap, progress: &mut Progress) {
    let Some(end) = &mut progress.grpc else { return };
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if let Some(status) = text("grpc-status") {
        *end = GrpcEnd { status: status.parse().ok(), message: text("grpc-message") };
    }
}

async fn handshake<T>(io: TokioIo<T>, http2: bool) -> Result<Sender, Failure>
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    if http2 {
        let handshake = http2::handshake(TokioExecutor::new(), io).await;
        let (sender, connection) = handshake.map_err(|error| Failure::from_hyper(&error, Phase::Connect))?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        return Ok(Sender::Http2(sender));
    }
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(1 << 20)
        .handshake(io)
        .await
        .map_err(|error| Failure::from_hyper(&error, Phase::Connect))?;
    // Errors of the connection reach the request in flight through `sender`; between requests they only end it.
    let driver: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        let _ = connection.with_upgrades().await;
    });
    tokio::spawn(driver);
    Ok(Sender::Http1(sender))
}

impl RequestParts {
    fn new(probe: &HttpProbe) -> Result<Self, Failure> {
        let invalid = |what: &str, value: &str| {
            Failure::new(Outcome::ProbeError, Phase::Queued, format!("{what} `{value}` cannot be sent in an HTTP/1.1 request"))
        };
        let method = Method::from_bytes(probe.method.as_bytes()).map_err(|_| invalid("method", &probe.method))?;
        let mut headers = HeaderMap::new();
        let target = match probe.protocol {
            Protocol::Http1 => {
                headers.insert(http::header::HOST, HeaderValue::from_str(&probe.host).map_err(|_| invalid("host", &probe.host))?);
                probe.target.parse::<Uri>()
            }
            // `:scheme`, `:authority` and `:path` (RFC 9113 section 8.3.1).
            Protocol::Http2 | Protocol::Grpc => {
                let scheme = if probe.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{}{}", probe.host, probe.target).parse::<Uri>()
            }
        };
        let target = target.map_err(|_| invalid("target", &probe.target))?;
        if probe.protocol == Protocol::Grpc {
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        }
        headers.insert(http::header::USER_AGENT, HeaderValue::from_static("gatelab-probe"));
        for (name, value) in &probe.headers {
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("header", name))?;
            let text = HeaderValue::from_str(value).map_err(|_| invalid("header value", value))?;
            if key == http::header::USER_AGENT {
                headers.insert(key, text);
            } else {
                headers.append(key, text);
            }
        }
        let mut body = Vec::new();
        if probe.protocol == Protocol::Grpc {
            // Not compressed, then the message's length (gRPC over HTTP/2, "Length-Prefixed-Message").
            body.push(0);
            body.extend_from_slice(&u32::try_from(probe.body.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        body.extend_from_slice(probe.body.as_bytes());
        Ok(RequestParts { method, target, headers, body: body.into() })
    }

    fn build(&self, request_id: Uuid, handshake: Option<&websocket::Handshake>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        if let Ok(value) = HeaderValue::from_str(&request_id.to_string()) {
            request.headers_mut().insert(HeaderName::from_static("x-request-id"), value);
        }
        if let Some(handshake) = handshake {
            handshake.ask(request.headers_mut());
        }
        request
    }
}
