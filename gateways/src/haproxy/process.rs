//! Running HAProxy: start, endpoints by its runtime API, hitless reload for all else, graceful end.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use async_trait::async_trait;
use nix::sys::signal::Signal;
use tokio::{
    net::UnixStream,
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::{
    config::{self, ADMIN_SOCKET, CONF, Layout},
    log_relay::LogRelay,
    servers::Servers,
};
use crate::{
    agent::{ApplyError, Binary, Files, Gateway, GatewayError, Process, ask, write_atomically},
    model::Model,
};

/// How long a new worker may take to serve, and an old one to stop accepting, before the agent gives up waiting for the proof.
const SETTLE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// After loading, the master executes itself once more to wait in little memory; a signal that comes in between can be lost.
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);

/// A running HAProxy in master-worker mode (or one about to be started).
#[derive(Debug)]
pub(crate) struct HaproxyGateway {
    binary: Binary,
    layout: Layout,
    master: Process,
    generation: u64,
    /// What the running one has, as far as it was told.
    servers: Servers,
    files: Files,
    /// Dropped last, when all workers have written.
    _relay: Option<LogRelay>,
}

impl HaproxyGateway {
    /// Where no socket can be had for the log, HAProxy writes to the layout's target.
    pub fn new(binary: Binary, mut layout: Layout) -> Self {
        let relay = LogRelay::start(binary.output.as_deref()).ok();
        if let Some(relay) = &relay {
            layout.log = relay.address().to_string();
        }
        Self {
            binary,
            layout,
            master: Process::none("HAProxy"),
            generation: 0,
            servers: Servers::default(),
            files: Files::new(),
            _relay: relay,
        }
    }

    /// Puts a configuration that differs in endpoints alone in force; `false` where it takes a reload.
    async fn change_servers(&mut self, files: &Files) -> bool {
        let others =
            |files: &Files| files.iter().filter(|(name, _)| name.as_os_str() != CONF).map(|(_, text)| text.clone()).collect::<Vec<_>>();
        let conf = files.get(Path::new(CONF)).map(String::as_str).unwrap_or_default();
        if !self.master.is_started() || others(&self.files) != others(files) {
            return false;
        }
        let Some((commands, after)) = self.servers.change_to(&Servers::of(conf)) else { return false };
        for command in &commands {
            let answer = timeout(SETTLE, ask(&self.file(ADMIN_SOCKET), &format!("{command}\n"))).await;
            // A change of address is told, a change of state is silent (management guide, "set server").
            let done = answer.is_ok_and(|answer| {
                answer
                    .is_ok_and(|answer| answer.trim().is_empty() || answer.contains("changed from") || answer.contains("no need to change"))
            });
            if !done {
                return false;
            }
        }
        self.servers = after;
        true
    }

    fn command(&self, conf: &Path) -> Command {
        let mut command = self.binary.command();
        command.arg("-f").arg(conf);
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.layout.state.join(name)
    }

    fn socket(&self, generation: u64) -> PathBuf {
        self.file(&format!("generation-{generation}.sock"))
    }

    /// Waits until the worker of this generation answers: each generation listens on a socket of its own.
    async fn wait_for_generation(&mut self, generation: u64) -> Result<(), ApplyError> {
        let socket = self.socket(generation);
        let mut told = Instant::now();
        let served = timeout(SETTLE, async {
            loop {
                if self.generation > 0 && told.elapsed() > SIGNAL_AGAIN {
                    self.master.signal(Signal::SIGUSR2).map_err(ApplyError::Internal)?;
                    told = Instant::now();
                }
                if ask(&socket, "GET / HTTP/1.0\r\n\r\n")
                    .await
                    .is_ok_and(|answer| answer.starts_with("HTTP/1.") && answer.contains(" 200 "))
                {
                    return Ok(());
                }
                self.master.check_alive()?;
                sleep(POLL).await;
            }
        });
        served.await.unwrap_or_else(|_| Err(ApplyError::Internal(format!("HAProxy's worker did not serve within {SETTLE:?}"))))
    }

    /// Waits until the worker of the generation before accepts no more. Told to stop (SIGUSR1 from the master), it closes all its
    /// listeners in one go, the one on its own socket among them.
    async fn wait_for_retirement(&self, generation: u64) {
        let socket = self.socket(generation);
        // Running into the limit is no error: HAProxy itself has taken the new configuration.
        let _ = timeout(SETTLE, async {
            while UnixStream::connect(&socket).await.is_ok() {
                sleep(POLL).await;
            }
        })
        .await;
        // HAProxy leaves the file of a closed socket behind.
        let _ = std::fs::remove_file(&socket);
    }
}

#[async_trait]
impl Gateway for HaproxyGateway {
    fn render(&self, model: &Model) -> Files {
        config::render(model, &self.layout)
    }

    async fn apply(&mut self, _model: &Model, files: &Files) -> Result<(), ApplyError> {
        if self.change_servers(files).await {
            self.files = files.clone();
            return Ok(());
        }
        let generation = self.generation + 1;
        let candidate = self.file("candidate.cfg");
        // Not logged: no line about it can be taken for one about a request.
        let own = format!(
            "frontend _generation\n    mode http\n    no log\n    timeout client 5s\n    bind unix@{}\n    http-request return status 200\n",
            self.socket(generation).display()
        );
        for (name, content) in files {
            // One file, so that whoever answers on this generation's socket has read this configuration: a reload may come at any
            // moment, when a signal was sent again and the first had not been lost.
            let (path, content) = match name.as_os_str() == CONF {
                true => (candidate.clone(), format!("{content}{own}")),
                false => (self.layout.state.join(name), content.clone()),
            };
            write_atomically(&path, &content).map_err(ApplyError::Internal)?;
        }
        let test = self.command(&candidate).arg("-c").stdin(Stdio::null()).output().await;
        let test = test.map_err(|error| ApplyError::Internal(format!("cannot run {}: {error}", self.binary.path.display())))?;
        if !test.status.success() {
            return Err(ApplyError::Rejected(rejection(&String::from_utf8_lossy(&test.stderr))));
        }
        let conf = self.file(CONF);
        std::fs::rename(&candidate, &conf)
            .map_err(|error| ApplyError::Internal(format!("cannot rename {}: {error}", candidate.display())))?;
        if self.master.is_started() {
            // The master reads its files again and starts a worker, which takes the sockets over from the old one (management guide,
            // "Starting HAProxy", master-worker mode).
            self.master.signal(Signal::SIGUSR2).map_err(ApplyError::Internal)?;
        } else {
            self.master.started(self.binary.spawn(self.command(&conf).arg("-W"))?);
        }
        self.wait_for_generation(generation).await?;
        if self.generation > 0 {
            self.wait_for_retirement(self.generation).await;
        }
        self.generation = generation;
        self.servers = Servers::of(files.get(Path::new(CONF)).map(String::as_str).unwrap_or_default());
        self.files = files.clone();
        Ok(())
    }

    async fn ended(&mut self) -> GatewayError {
        self.master.ended().await
    }

    /// SIGUSR1: workers finish their requests, then all end.
    async fn quit(&mut self) {
        loop {
            // It may be gone already.
            let _ = self.master.signal(Signal::SIGUSR1);
            if timeout(SIGNAL_AGAIN, self.master.wait()).await.is_ok() {
                return;
            }
        }
    }
}

/// What `haproxy -c` found wrong, without the closing verdicts.
fn rejection(output: &str) -> String {
    let alerts: Vec<&str> = output
        .lines()
        .filter(|line| line.contains("[ALERT]") && !line.contains("Error(s) found") && !line.contains("Fatal errors found"))
        .filter_map(|line| line.split_once(" : ").map(|(_, message)| message.trim()))
        .collect();
    if alerts.is_empty() { output.trim().to_owned() } else { alerts.join("; ") }
}
