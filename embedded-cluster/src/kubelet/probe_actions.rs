//! One try of a probe or hook: HTTP, TCP, gRPC or a command. Messages are those of the kubelet (`pkg/probe`), as people
//! search for them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::runtime::{ContainerId, ContainerRuntime, ExecSpec, RuntimeError};

/// Output of a probe that is kept for its message (`maxProbeMessageLength`).
const MAX_MESSAGE: usize = 1024;
/// How much of a body is read before it counts as answered (`maxRespBodyLength`).
const MAX_BODY: usize = 10 * 1024;

/// Where a probe is aimed.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) node: String,
    pub(super) pod_ip: Ipv4Addr,
    pub(super) container: Container,
    pub(super) id: ContainerId,
}

/// `Ok` is success; the text of a failure goes into the event.
pub(super) type Outcome = Result<(), String>;

impl Target {
    /// One try within the probe's timeout.
    pub(super) async fn probe(&self, probe: &Probe) -> Outcome {
        let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1));
        if let Some(action) = &probe.exec {
            return match tokio::time::timeout(timeout, self.exec(action)).await {
                Ok(outcome) => outcome.map_err(|failure| failure.1),
                Err(_) => Err(format!("command timed out: {:?} timed out after {}s", command_line(action), timeout.as_secs())),
            };
        }
        if let Some(action) = &probe.http_get {
            return self.http(action, timeout, "kube-probe/1.33").await;
        }
        if let Some(action) = &probe.tcp_socket {
            return self.tcp(action, timeout).await;
        }
        if let Some(action) = &probe.grpc {
            return self.grpc(action, timeout).await;
        }
        Err("missing probe handler".to_owned())
    }

    /// Runs a command in the container: its exit code (-1 when it could not run) and output on failure.
    pub(super) async fn exec(&self, action: &ExecAction) -> Result<(), (i32, String)> {
        let command = action.command.clone().unwrap_or_default();
        let spec = ExecSpec { command, tty: false, stdin: false };
        let process = self.runtime.exec(&self.id, spec).await.map_err(|e| (-1, exec_error(&e)))?;
        let (stdout, stderr) = (process.stdout, process.stderr);
        let (out, err) = tokio::join!(read_some(stdout), read_some(stderr));
        let code = process.exit.await.unwrap_or(-1);
        drop(process.guard);
        if code == 0 { Ok(()) } else { Err((code, format!("{out}{err}"))) }
    }

    fn address(&self, host: Option<&str>, port: &IntOrString) -> Result<(String, SocketAddr), String> {
        let number = self.port(port)?;
        let host = host.filter(|host| !host.is_empty()).map_or_else(|| self.pod_ip.to_string(), str::to_owned);
        let ip: IpAddr = host.parse().map_err(|_| format!("host {host:?} of the probe must be an address in this lab"))?;
        Ok((host, SocketAddr::new(ip, number)))
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => name.parse().ok().or_else(|| {
                let ports = self.container.ports.iter().flatten();
                ports.filter(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port).next()
            }),
        };
        let shown = match port {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        };
        number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| format!("couldn't find port: {shown}"))
    }

    async fn tcp(&self, action: &TCPSocketAction, timeout: Duration) -> Outcome {
        let (_, address) = self.address(action.host.as_deref(), &action.port)?;
        match tokio::time::timeout(timeout, self.runtime.dial_from_node(&self.node, address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(dial_error(address, &error)),
            Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
        }
    }

    /// 2xx and 3xx are success. Redirects are not followed: a real kubelet follows them to the same host only.
    pub(super) async fn http(&self, action: &HTTPGetAction, timeout: Duration, agent: &str) -> Outcome {
        let (host, address) = self.address(action.host.as_deref(), &action.port)?;
        let tls = action.scheme.as_deref().unwrap_or("HTTP").eq_ignore_ascii_case("HTTPS");
        let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let url = format!("{}://{host}:{}{path}", if tls { "https" } else { "http" }, address.port());
        let attempt = async {
            let stream = self.runtime.dial_from_node(&self.node, address).await.map_err(|e| dial_error(address, &e))?;
            let mut request = Request::get(path.as_str()).header("Connection", "close");
            let headers = action.http_headers.as_deref().unwrap_or_default();
            let given = |name: &str| headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
            if !given("host") {
                request = request.header("Host", address.to_string());
            }
            if !given("user-agent") {
                request = request.header("User-Agent", agent);
            }
            if !given("accept") {
                request = request.header("Accept", "*/*");
            }
            for header in headers {
                request = request.header(header.name.as_str(), header.value.as_str());
            }
            let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
            if tls {
                let name = ServerName::IpAddress(address.ip().into());
                let connector = tokio_rustls::TlsConnector::from(trusting_config()?);
                let stream = connector.connect(name, stream).await.map_err(|e| tls_error(&e))?;
                status_of(stream, request).await
            } else {
                status_of(stream, request).await
            }
        };
        match tokio::time::timeout(timeout, attempt).await {
            Ok(Ok(status)) if (200..400).contains(&status) => Ok(()),
            Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {status}")),
            Ok(Err(error)) => Err(format!("Get {url:?}: {error}")),
            Err(_) => Err(format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
        }
    }

    /// The standard health service: `grpc.health.v1.Health/Check` must say SERVING.
    async fn grpc(&self, action: &GRPCAction, timeout: Duration) -> Outcome {
        let (_, address) = self.address(None, &IntOrString::Int(action.port))?;
        let attempt = async {
            let stream = self.runtime.dial_from_node(&self.node, address).await.map_err(|e| dial_error(address, &e))?;
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|e| format!("error: this server does not speak HTTP/2: {e}"))?;
            let connection = tokio::spawn(connection);
            let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("user-agent", "kube-probe/1.33")
                .body(Full::new(health_request(action.service.as_deref().unwrap_or_default())))
                .map_err(|e| e.to_string())?;
            let response = sender.send_request(request).await.map_err(|e| format!("error: health rpc failed: {e}"));
            let outcome = async {
                let response = response?;
                let early = response.headers().get("grpc-status").cloned();
                let body = response.into_body().collect().await.map_err(|e| format!("error: health rpc failed: {e}"))?;
                let status = body.trailers().and_then(|t| t.get("grpc-status")).cloned().or(early);
                serving(status.as_ref().and_then(|s| s.to_str().ok()), &body.to_bytes())
            };
            let outcome = outcome.await;
            connection.abort();
            outcome
        };
        tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| {
            Err(format!("timeout: failed to connect service \"{address}\" within {timeout:?}: context deadline exceeded"))
        })
    }
}

fn health_request(service: &str) -> Bytes {
    // HealthCheckRequest { string service = 1 }, behind gRPC's five bytes: not compressed, and the length.
    let mut message = Vec::new();
    if !service.is_empty() {
        let name = &service.as_bytes()[..service.len().min(127)];
        message.extend([0x0a, u8::try_from(name.len()).unwrap_or(127)]);
        message.extend(name);
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend(message);
    frame.into()
}

fn serving(status: Option<&str>, body: &[u8]) -> Outcome {
    match status {
        Some("0") | None => {}
        Some("12") => return Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()),
        Some(code) => return Err(format!("error: health rpc probe failed with status code {code}")),
    }
    // HealthCheckResponse { ServingStatus status = 1 }: SERVING is 1.
    match body.get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        Some([0x08, 2, ..]) => Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
        _ => Err("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
    }
}

async fn status_of<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|e| http_error(&e))?;
    let connection = tokio::spawn(connection);
    let outcome = async {
        let mut response = sender.send_request(request).await.map_err(|e| http_error(&e))?;
        let mut read = 0;
        while let Some(frame) = response.body_mut().frame().await {
            read += frame.map_err(|e| http_error(&e))?.data_ref().map_or(0, Bytes::len);
            if read >= MAX_BODY {
                break;
            }
        }
        Ok(response.status().as_u16())
    };
    let outcome = outcome.await;
    connection.abort();
    outcome
}

fn command_line(action: &ExecAction) -> String {
    action.command.iter().flatten().cloned().collect::<Vec<_>>().join(" ")
}

fn exec_error(error: &RuntimeError) -> String {
    format!("rpc error: code = Unknown desc = failed to exec in container: {error}")
}

async fn read_some(stream: Option<Box<dyn AsyncRead + Send + Unpin>>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    // Read to the end even when enough is kept: a command must not hang on a full pipe.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = MAX_MESSAGE.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Go's words for what the kernel said.
fn dial_error(address: SocketAddr, error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => format!("dial tcp {address}: connect: connection refused"),
        Some(libc::EHOSTUNREACH) => format!("dial tcp {address}: connect: no route to host"),
        Some(libc::ENETUNREACH) => format!("dial tcp {address}: connect: network is unreachable"),
        Some(libc::ETIMEDOUT) => format!("dial tcp {address}: connect: connection timed out"),
        Some(libc::ECONNRESET) => format!("dial tcp {address}: connect: connection reset by peer"),
        _ => format!("dial tcp {address}: {error}"),
    }
}

fn http_error(error: &hyper::Error) -> String {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return match io.raw_os_error() {
                Some(libc::ECONNRESET) => "read: connection reset by peer".to_owned(),
                Some(libc::EPIPE) => "write: broken pipe".to_owned(),
                _ => io.to_string(),
            };
        }
        cause = inner.source();
    }
    if error.is_incomplete_message() {
        "EOF".to_owned()
    } else if error.is_parse() {
        "net/http: HTTP/1.x transport connection broken: malformed HTTP response".to_owned()
    } else {
        error.to_string()
    }
}

fn tls_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    if text.contains("InvalidContentType") || text.contains("corrupt message") {
        "http: server gave HTTP response to HTTPS client".to_owned()
    } else if error.kind() == std::io::ErrorKind::UnexpectedEof {
        "EOF".to_owned()
    } else {
        format!("remote error: tls: {text}")
    }
}

fn trusting_config() -> Result<Arc<rustls::ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Probes check that something answers, not who it is: the kubelet does not verify certificates either.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
