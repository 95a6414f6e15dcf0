//! Running nginx: start, graceful reload, graceful end.

use std::{collections::BTreeSet, path::PathBuf, process::Stdio, time::Duration};

use async_trait::async_trait;
use nix::sys::signal::Signal;
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use super::config::{self, CONF, GENERATION_CONF, Layout};
use crate::{
    agent::{ApplyError, Binary, Files, Gateway, GatewayError, Process, ask, write_atomically},
    model::Model,
};

/// How long new workers may take to serve, and old ones to stop accepting, before the agent gives up waiting for the proof.
const SETTLE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// A running nginx (or one about to be started).
#[derive(Debug)]
pub(crate) struct NginxGateway {
    binary: Binary,
    layout: Layout,
    master: Process,
    generation: u64,
}

impl NginxGateway {
    pub fn new(binary: Binary, layout: Layout) -> Self {
        Self { binary, layout, master: Process::none("nginx"), generation: 0 }
    }

    fn command(&self, conf: &std::path::Path) -> Command {
        let mut command = self.binary.command();
        command.arg("-p").arg(&self.layout.state).arg("-c").arg(conf);
        // Without it lines from before nginx.conf is read go to a compiled-in file (nginx 1.19.5)
        if self.layout.version >= (1, 19, 5) {
            command.args(["-e", "stderr"]);
        }
        command
    }

    fn socket(&self, generation: u64) -> PathBuf {
        self.layout.file(&format!("generation-{generation}.sock"))
    }

    fn write_file(&self, name: &str, content: &str) -> Result<(), ApplyError> {
        write_atomically(&self.layout.file(name), content).map_err(ApplyError::Internal)
    }

    /// Worker processes: the children of the master.
    fn workers(&self) -> BTreeSet<i32> {
        let Some(master) = self.master.id() else { return BTreeSet::new() };
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Waits until a worker of this generation answers: each generation listens on a socket of its own, which older workers do not have.
    async fn wait_for_generation(&mut self, generation: u64) -> Result<(), ApplyError> {
        let socket = self.socket(generation);
        let wanted = format!("generation {generation}\n");
        let served = timeout(SETTLE, async {
            loop {
                if let Ok(answer) = ask(&socket, "GET / HTTP/1.0\r\n\r\n").await
                    && answer.ends_with(&wanted)
                {
                    return Ok(());
                }
                self.master.check_alive()?;
                sleep(POLL).await;
            }
        });
        served.await.unwrap_or_else(|_| Err(ApplyError::Internal(format!("nginx' workers did not serve within {SETTLE:?}"))))
    }

    /// Waits until workers of older generations accept no more: they are gone, or nginx has set their process title to
    /// `nginx: worker process is shutting down`, which it does right before it closes the listening sockets.
    async fn wait_for_retirement(&self, old: &BTreeSet<i32>) {
        let retired = |pid: &i32| match std::fs::read_to_string(format!("/proc/{pid}/cmdline")) {
            Ok(title) => title.contains("is shutting down") || title.is_empty(),
            Err(_) => true,
        };
        // Running into the limit is no error: nginx itself has taken the new configuration.
        let _ = timeout(SETTLE, async {
            while !old.iter().all(retired) {
                sleep(POLL).await;
            }
        })
        .await;
    }
}

#[async_trait]
impl Gateway for NginxGateway {
    fn render(&self, model: &Model) -> Files {
        config::render(model, &self.layout)
    }

    async fn apply(&mut self, _model: &Model, files: &Files) -> Result<(), ApplyError> {
        let generation = self.generation + 1;
        std::fs::create_dir_all(self.layout.file("temporary")).map_err(|error| ApplyError::Internal(error.to_string()))?;
        self.write_file(
            GENERATION_CONF,
            &format!(
                "server {{ listen unix:{}; access_log off; location / {{ return 200 \"generation {generation}\\n\"; }} }}\n",
                self.socket(generation).display()
            ),
        )?;
        let candidate = self.layout.file("candidate.conf");
        for (name, content) in files {
            let path = if name.as_os_str() == CONF { candidate.clone() } else { self.layout.state.join(name) };
            write_atomically(&path, content).map_err(ApplyError::Internal)?;
        }
        let test = self.command(&candidate).arg("-t").stdin(Stdio::null()).output().await;
        let test = test.map_err(|error| ApplyError::Internal(format!("cannot run {}: {error}", self.binary.path.display())))?;
        if !test.status.success() {
            return Err(ApplyError::Rejected(rejection(&String::from_utf8_lossy(&test.stderr))));
        }
        let conf = self.layout.file(CONF);
        std::fs::rename(&candidate, &conf)
            .map_err(|error| ApplyError::Internal(format!("cannot rename {}: {error}", candidate.display())))?;
        let old = self.workers();
        if self.master.is_started() {
            self.master.signal(Signal::SIGHUP).map_err(ApplyError::Internal)?;
        } else {
            self.master.started(self.binary.spawn(&mut self.command(&conf))?);
        }
        self.wait_for_generation(generation).await?;
        self.wait_for_retirement(&old).await;
        self.generation = generation;
        Ok(())
    }

    async fn ended(&mut self) -> GatewayError {
        self.master.ended().await
    }

    /// SIGQUIT: workers finish their requests. ingress-nginx does the same on SIGTERM (`nginx -s quit`, then waits for it).
    async fn quit(&mut self) {
        self.master.quit(Signal::SIGQUIT).await;
    }
}

/// What `nginx -t` found wrong: its lines without the closing verdict, and without names of candidate files.
fn rejection(output: &str) -> String {
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| ["[emerg]", "[alert]", "[crit]"].iter().any(|level| line.contains(level)))
        .map(|line| line.trim_start_matches("nginx: "))
        .collect();
    if lines.is_empty() { output.trim().to_owned() } else { lines.join("; ") }
}
