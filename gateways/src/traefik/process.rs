//! Running Traefik: start, wait until it routes what the objects say, graceful end.

use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    KIND,
    arguments::{self, Layout},
    routing,
};
use crate::{
    EffectiveSettings,
    agent::{ApplyError, Binary, Files, Gateway, GatewayError, Process, write_atomically},
    model::Model,
};

/// How long Traefik may take to start.
const START: Duration = Duration::from_secs(15);
/// How long it is waited for at a time, beside its throttle. Objects that change meanwhile make this wait pointless, so it is short:
/// the reconciler then comes again with the newest.
const SETTLE: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(20);

/// A running Traefik (or one about to be started).
#[derive(Debug)]
pub(crate) struct TraefikGateway {
    binary: Binary,
    layout: Layout,
    process: Process,
    arguments: Vec<String>,
}

impl TraefikGateway {
    pub fn new(binary: Binary, layout: Layout) -> Self {
        Self { binary, layout, process: Process::none("Traefik"), arguments: Vec::new() }
    }

    /// Its one serversTransport is for all backends, so it has the one authority that the settings name for all of them.
    fn arguments_for(&self, model: &Model) -> Vec<String> {
        let authority = model.hosts.iter().flat_map(|host| &host.routes).find_map(|route| route.ca.as_deref());
        arguments::arguments(&model.global, authority, &self.layout)
    }

    async fn raw_data(&self) -> std::io::Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.layout.api_port)).await?;
        // HTTP/1.0: the answer comes in one piece and ends with the connection
        stream.write_all(b"GET /api/rawdata HTTP/1.0\r\nhost: localhost\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(serde_json::from_str(body)?)
    }

    /// Waits until Traefik's API answers.
    async fn started(&mut self) -> Result<(), ApplyError> {
        let answers = timeout(START, async {
            while self.raw_data().await.is_err() {
                self.process.check_alive()?;
                sleep(POLL).await;
            }
            Ok(())
        });
        answers.await.unwrap_or_else(|_| Err(ApplyError::Internal(format!("Traefik's API does not answer within {START:?}"))))
    }

    async fn settled(&mut self, model: &Model, within: Duration) -> Result<(), ApplyError> {
        let mut last = "its API does not answer".to_owned();
        let settled = timeout(within, async {
            loop {
                if let Ok(raw) = self.raw_data().await {
                    match routing::difference(model, &raw) {
                        None => return Ok(()),
                        Some(difference) => last = difference,
                    }
                }
                self.process.check_alive()?;
                sleep(POLL).await;
            }
        })
        .await;
        settled.unwrap_or(Err(ApplyError::Behind(last)))
    }

    /// A certificate for names that no Ingress has one for. Without it Traefik makes an RSA key of its own at every change of its
    /// configuration (`getDefaultCertificate` in pkg/tls/tlsmanager.go), which on a busy machine keeps it at the old routes for seconds.
    /// What the settings add stands in the same file.
    fn write_dynamic(&self, settings: &EffectiveSettings) -> Result<(), String> {
        let made = rcgen::generate_simple_self_signed(["traefik.default".to_owned()])
            .map_err(|error| format!("cannot make a default certificate for Traefik: {error}"))?;
        let (certificate, key) = (self.layout.state.join("default.crt"), self.layout.state.join("default.key"));
        write_atomically(&certificate, &made.cert.pem())?;
        write_atomically(&key, &made.signing_key.serialize_pem())?;
        let store = serde_json::json!({ "stores": { "default": { "defaultCertificate": { "certFile": certificate, "keyFile": key } } } });
        let added = settings.snippets.object(KIND, "dynamic");
        let mut dynamic = added.and_then(Value::as_object).cloned().unwrap_or_default();
        dynamic.entry("tls").or_insert(store);
        // JSON is YAML
        let content = Value::Object(dynamic).to_string();
        write_atomically(&self.layout.state.join(arguments::dynamic_file(settings)), &content)
    }
}

#[async_trait]
impl Gateway for TraefikGateway {
    /// Not files of Traefik's: its arguments, and what it is to have found by itself, so that a change of either is noticed.
    fn render(&self, model: &Model) -> Files {
        Files::from([
            ("arguments".into(), self.arguments_for(model).join("\n")),
            ("routes".into(), format!("{:#?}\n{:#?}", model.hosts, model.backends)),
        ])
    }

    async fn apply(&mut self, model: &Model, _files: &Files) -> Result<(), ApplyError> {
        let arguments = self.arguments_for(model);
        if arguments != self.arguments {
            // Static configuration is read once
            self.quit().await;
            self.write_dynamic(&model.global).map_err(ApplyError::Internal)?;
            self.process.started(self.binary.spawn(self.binary.command().args(&arguments))?);
            self.arguments = arguments;
            self.started().await?;
        }
        self.settled(model, SETTLE + 2 * model.global.sync_delay).await
    }

    async fn ended(&mut self) -> GatewayError {
        self.process.ended().await
    }

    /// SIGTERM: requests in flight have `transport.lifeCycle.graceTimeOut` (10 s) to end.
    async fn quit(&mut self) {
        self.process.quit(Signal::SIGTERM).await;
    }
}
