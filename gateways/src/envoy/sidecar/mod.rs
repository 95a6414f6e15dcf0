//! `gatelab sidecar`: a real Envoy as a pod's sidecar, in the manner of Istio's.
//!
//! Envoy starts at once, but has no listeners before its control plane sends them, as Istio's `pilot-agent` starts it. Until then the
//! redirected connections of the pod, in and out, meet a closed port.

mod config;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{Admin, KIND, arguments as envoy_arguments};
use crate::{
    agent::{Binary, health::Health, log, write_atomically},
    fetch::{FetchError, version},
    settings::duration,
};

/// `server` of an answer that a sidecar made, as Istio has it; a gateway may replace it.
pub const SERVER: &str = "istio-envoy";

/// How answers of its own begin (source/common/router/router.cc, source/common/http/utility.cc).
pub const LOCAL_REPLIES: [&str; 3] =
    ["upstream connect error or disconnect/reset before headers", "no healthy upstream", "upstream request timeout"];

/// Arguments of `gatelab sidecar`. The ports are Istio's.
#[derive(Debug, Clone, clap::Args)]
pub struct SidecarArgs {
    /// Envoy's binary.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Folders with shared libraries for it.
    #[arg(long)]
    pub library_path: Vec<PathBuf>,
    /// Folder for generated configuration.
    #[arg(long, default_value = "/tmp/sidecar")]
    pub state: PathBuf,
    /// Takes connections made to the pod.
    #[arg(long, default_value_t = 15006)]
    pub inbound_port: u16,
    /// Takes connections made by the pod.
    #[arg(long, default_value_t = 15001)]
    pub outbound_port: u16,
    /// Answers `/healthz/ready`: 200 when Envoy has its listeners.
    #[arg(long, default_value_t = 15021)]
    pub health_port: u16,
    /// Envoy's admin interface, on the pod's loopback.
    #[arg(long, default_value_t = 15000)]
    pub admin_port: u16,
    /// Mark (SO_MARK) on the sidecar's own connections, by which `gatelab redirect` knows them; 0: no mark.
    #[arg(long, default_value_t = 1337)]
    pub mark: u32,
    /// How long the control plane takes to send the first configuration.
    #[arg(long, default_value = "0", value_parser = duration::parse)]
    pub control_plane_latency: Duration,
    /// The configuration comes when this file is there.
    #[arg(long)]
    pub configured_by: Option<PathBuf>,
    /// How long connecting to the application may take. Istio: 10 s.
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    pub connect_timeout: Duration,
    /// What SIGTERM does: `at-once`, or `drain:5s` (Istio's terminationDrainDuration): listeners drain for that long, then Envoy ends.
    #[arg(long, default_value = "drain:5s", value_parser = Termination::parse)]
    pub terminate: Termination,
}

/// What SIGTERM does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// Envoy ends, with its connections.
    AtOnce,
    /// Listeners drain for this long, then Envoy ends.
    Drain(Duration),
}

impl Termination {
    /// Reads `at-once` or `drain:DURATION`.
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "at-once" => Ok(Self::AtOnce),
            Some(("drain", time)) => duration::parse(time).map(Self::Drain),
            _ => Err(format!("`{text}` is neither `at-once` nor `drain:DURATION`")),
        }
    }
}

/// Why the sidecar stopped.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    #[error(transparent)]
    Binary(#[from] FetchError),
    #[error("no envoy to run: name it with --binary, or put it on PATH")]
    NoBinary,
    #[error("cannot {attempt}: {source}")]
    Io { attempt: String, source: std::io::Error },
    #[error("{0}")]
    Start(String),
    #[error("Envoy ended by itself: {0}")]
    Ended(String),
}

/// Runs the sidecar until SIGTERM or SIGINT.
///
/// # Errors
/// When Envoy cannot be started, or ends by itself.
pub async fn run(arguments: SidecarArgs) -> Result<ExitCode, SidecarError> {
    let io = |attempt: &str| {
        let attempt = attempt.to_owned();
        move |source| SidecarError::Io { attempt, source }
    };
    // First of all: as process 1 of a container, a signal without a handler is ignored (pid_namespaces(7)).
    let mut terminate = signal(SignalKind::terminate()).map_err(io("listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("listen for SIGINT"))?;
    let path = arguments.binary.clone().or_else(|| crate::fetch::locate("envoy")).ok_or(SidecarError::NoBinary)?;
    version::ask(KIND, &path, &arguments.library_path)?;
    let binary = Binary { path, library_path: version::library_path_value(&arguments.library_path), output: None };
    std::fs::create_dir_all(&arguments.state).map_err(io("create the state folder"))?;
    let health = Health::serve(arguments.health_port).await.map_err(io("listen on the health port"))?;
    let mut sidecar = Sidecar::start(arguments, &binary)?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        error = sidecar.serve(&health) => return Err(error),
        () = stop => {}
    }
    health.set(false);
    sidecar.end().await;
    Ok(ExitCode::SUCCESS)
}

struct Sidecar {
    arguments: SidecarArgs,
    admin: Admin,
    envoy: Child,
}

impl Sidecar {
    fn start(arguments: SidecarArgs, binary: &Binary) -> Result<Self, SidecarError> {
        let start = SidecarError::Start;
        let bootstrap = arguments.state.join("bootstrap.json");
        write_atomically(&bootstrap, &config::bootstrap(&arguments)).map_err(start)?;
        let admin = Admin::new(arguments.state.join("admin-address"));
        // What an earlier Envoy of the same container left
        let _ = std::fs::remove_file(admin.address_file());
        // Envoy wants the file to be there, so it starts with no listeners in it
        write_atomically(&arguments.state.join(config::LDS), &config::no_listeners()).map_err(start)?;
        let mut command = binary.command();
        command.arg("-c").arg(&bootstrap).args(envoy_arguments(1)).arg("--admin-address-path").arg(admin.address_file());
        if let Termination::Drain(time) = arguments.terminate {
            command.args(["--drain-time-s", &time.as_secs().max(1).to_string(), "--drain-strategy", "immediate"]);
        }
        let envoy = binary.spawn(&mut command).map_err(|error| start(error.to_string()))?;
        Ok(Self { arguments, admin, envoy })
    }

    /// Configures Envoy when its time has come, and stays until Envoy ends.
    async fn serve(&mut self, health: &Health) -> SidecarError {
        let configure = async {
            sleep(self.arguments.control_plane_latency).await;
            if let Some(file) = &self.arguments.configured_by {
                while !file.exists() {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            write_atomically(&self.arguments.state.join(config::LDS), &config::listeners(&self.arguments))?;
            let listening = |stats: std::collections::BTreeMap<String, String>| {
                stats.get("listener_manager.total_listeners_active").is_some_and(|count| count == "2")
            };
            while !self.admin.stats("listener_manager.total_listeners_active").await.is_ok_and(listening) {
                sleep(Duration::from_millis(10)).await;
            }
            log("Envoy has its listeners");
            health.set(true);
            // Nothing more to do but to wait for Envoy's end
            std::future::pending::<Result<(), String>>().await
        };
        tokio::select! {
            Err(error) = configure => SidecarError::Start(error),
            status = self.envoy.wait() => SidecarError::Ended(status.map_or_else(|error| error.to_string(), |status| status.to_string())),
        }
    }

    async fn end(&mut self) {
        if let Termination::Drain(time) = self.arguments.terminate {
            log(&format!("told to stop: draining for {time:?}"));
            // As pilot-agent does it; an Envoy that is gone needs no draining
            if let Err(error) = self.admin.post("/drain_listeners?graceful&skip_exit").await {
                log(&error);
            }
            tokio::select! {
                () = sleep(time) => {}
                _ = self.envoy.wait() => {}
            }
        }
        if let Some(pid) = self.envoy.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may be gone already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.envoy.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_port() -> u16 {
        std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        sidecar: SidecarArgs,
    }

    /// Status of `GET /healthz/ready`, 0 when nobody listens.
    async fn health(port: u16) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return 0 };
        stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn listeners_come_with_the_configuration_and_go_with_the_end() {
        use clap::Parser;

        use crate::fetch::{Search, install};
        let build = match Search::from_environment().and_then(|search| install(KIND, &search, &|_| ())) {
            Ok(build) => build,
            Err(error) => {
                eprintln!("skipped: no envoy on this machine: {error}");
                return;
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let configured = folder.path().join("configured");
        let [inbound, outbound, health_port] = [(); 3].map(|()| free_port());
        let line = format!(
            "sidecar --binary {} --state {} --inbound-port {inbound} --outbound-port {outbound} --health-port {health_port} --admin-port 0 \
             --mark 0 --configured-by {} --terminate drain:100ms",
            build.binary.display(),
            folder.path().display(),
            configured.display()
        );
        let arguments = Line::parse_from(line.split_whitespace()).sidecar;
        let binary = Binary { path: build.binary, library_path: None, output: Some(folder.path().join("log")) };
        let health_server = Health::serve(health_port).await.unwrap();
        let mut sidecar = Sidecar::start(arguments, &binary).unwrap();
        let listens = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        {
            let serving = sidecar.serve(&health_server);
            tokio::pin!(serving);
            tokio::select! {
                error = &mut serving => panic!("{error}: {}", std::fs::read_to_string(folder.path().join("log")).unwrap()),
                () = sleep(Duration::from_millis(700)) => {}
            }
            assert!(!listens(inbound) && !listens(outbound));
            assert_eq!(health(health_port).await, 503);
            std::fs::write(&configured, "").unwrap();
            let ready = async {
                while health(health_port).await != 200 {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                error = &mut serving => panic!("{error}"),
                outcome = tokio::time::timeout(Duration::from_secs(20), ready) => outcome.unwrap(),
            }
            assert!(listens(inbound) && listens(outbound));
        }
        sidecar.end().await;
        assert!(!listens(inbound) && !listens(outbound));
    }

    #[test]
    fn terminations() {
        assert_eq!(Termination::parse("at-once"), Ok(Termination::AtOnce));
        assert_eq!(Termination::parse("drain:1500ms"), Ok(Termination::Drain(Duration::from_millis(1500))));
        for wrong in ["", "drain", "drain:", "drain:5", "now"] {
            assert!(Termination::parse(wrong).is_err(), "{wrong} was read");
        }
    }
}
