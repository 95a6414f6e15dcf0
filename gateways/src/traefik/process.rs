//! Running Traefik: start, wait until it routes what the objects say, graceful end.

use std::time::Duration;

use async_trait::async_trait;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Child,
    time::{sleep, timeout},
};

use super::{
    KIND,
    arguments::{self, Layout},
    routing,
};
use crate::{
    EffectiveSettings,
    agent::{ApplyError, Binary, Files, Gateway, GatewayError, write_atomically},
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
    child: Option<Child>,
    arguments: Vec<String>,
}

impl TraefikGateway {
    pub fn new(binary: Binary, layout: Layout) -> Self {
        Self { binary, layout, child: None, arguments: Vec::new() }
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
                self.alive()?;
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
                self.alive()?;
                sleep(POLL).await;
            }
        })
        .await;
        settled.unwrap_or(Err(ApplyError::Behind(last)))
    }

    fn alive(&mut self) -> Result<(), ApplyError> {
        match self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            Some(status) => Err(ApplyError::Internal(format!("Traefik ended with {status}"))),
            None => Ok(()),
        }
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

    fn terminate(&self) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id).and_then(|pid| i32::try_from(pid).ok()) {
            // It may be gone already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
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
            self.child = Some(self.binary.spawn(self.binary.command().args(&arguments))?);
            self.arguments = arguments;
            self.started().await?;
        }
        self.settled(model, SETTLE + 2 * model.global.sync_delay).await
    }

    async fn ended(&mut self) -> GatewayError {
        match &mut self.child {
            Some(child) => GatewayError::from_exit(child.wait().await),
            None => std::future::pending().await,
        }
    }

    /// SIGTERM: requests in flight have `transport.lifeCycle.graceTimeOut` (10 s) to end.
    async fn quit(&mut self) {
        self.terminate();
        if let Some(mut child) = self.child.take() {
            let _ = child.wait().await;
        }
    }
}
