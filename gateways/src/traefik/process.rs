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
    arguments::{self, Layout},
    routing,
};
use crate::{
    agent::{ApplyError, Binary, Files, Gateway, GatewayError},
    model::Model,
};

/// How long Traefik may take to start and to fill its caches.
const START: Duration = Duration::from_secs(15);
/// How long it may take to follow a change, beside its throttle. Objects that change meanwhile make this wait pointless, so it is short:
/// the reconciler then comes again with the newest.
const SETTLE: Duration = Duration::from_secs(2);
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

    async fn raw_data(&self) -> std::io::Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.layout.api_port)).await?;
        // HTTP/1.0: the answer comes in one piece and ends with the connection
        stream.write_all(b"GET /api/rawdata HTTP/1.0\r\nhost: localhost\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(serde_json::from_str(body)?)
    }

    async fn wait(&mut self, model: &Model, within: Duration) -> Result<(), ApplyError> {
        let mut last = "its API does not answer".to_owned();
        let settled = timeout(within, async {
            loop {
                if let Ok(raw) = self.raw_data().await {
                    match routing::difference(model, &raw) {
                        None => return Ok(()),
                        Some(difference) => last = difference,
                    }
                }
                if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                    return Err(ApplyError::Internal(format!("Traefik ended with {status}")));
                }
                sleep(POLL).await;
            }
        })
        .await;
        settled.unwrap_or(Err(ApplyError::Internal(last)))
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
            ("arguments".into(), arguments::arguments(&model.global, &self.layout).join("\n")),
            ("routes".into(), format!("{:#?}\n{:#?}", model.hosts, model.backends)),
        ])
    }

    async fn apply(&mut self, model: &Model, _files: &Files) -> Result<(), ApplyError> {
        let arguments = arguments::arguments(&model.global, &self.layout);
        let mut within = SETTLE + 2 * model.global.sync_delay;
        if arguments != self.arguments {
            // Static configuration is read once
            self.quit().await;
            self.child = Some(self.binary.spawn(self.binary.command().args(&arguments))?);
            self.arguments = arguments;
            within = START;
        }
        self.wait(model, within).await
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
