//! A running backend: its settings, its listeners, its state, and how it is switched and stopped.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustls::ServerConfig;
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Authority, Config, Error,
    admin::server as admin,
    journal::Journal,
    listener,
    metrics::Metrics,
    misbehaviour::certificate,
    process::{self, Exit},
};

/// How far the process is on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// Told to end, serving on for a while.
    Draining,
    /// No longer listening; requests in flight are finished.
    Finishing,
    Stopped(Exit),
}

/// The settings in force, with what was made from them.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) config: Config,
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

/// What every task of a backend shares.
#[derive(Debug)]
pub(crate) struct Shared {
    settings: watch::Sender<Arc<Active>>,
    phase: watch::Sender<Phase>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) metrics: Metrics,
    /// Pod name or host name, sent as `x-served-by`.
    pub(crate) served_by: String,
    pub(crate) started: Instant,
    pub(crate) listening: AtomicBool,
    pub(crate) address: Mutex<Option<SocketAddr>>,
    /// Connections of the main port; a graceful end waits for them.
    pub(crate) connections: TaskTracker,
    pub(crate) slots: Arc<listener::Slots>,
    /// Cuts every task and with it every socket.
    pub(crate) gone: CancellationToken,
    authority: Mutex<Option<Arc<Authority>>>,
    answered: AtomicU64,
}

impl Shared {
    pub(crate) fn active(&self) -> Arc<Active> {
        self.settings.borrow().clone()
    }

    pub(crate) fn settings(&self) -> watch::Receiver<Arc<Active>> {
        self.settings.subscribe()
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Moves on to a later phase; the first stop is the one that counts.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let moves = !matches!(current, Phase::Stopped(_)) && *current != phase;
            if moves {
                *current = phase;
            }
            moves
        });
    }

    /// Puts new settings in force.
    pub(crate) fn switch(&self, change: impl FnOnce(&Config) -> Result<Config, Error>) -> Result<(), Error> {
        // One change at a time, or one of two partial changes would be lost.
        let mut authority = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.active();
        let next = change(&current.config)?;
        current.config.check_switch(&next)?;
        let tls = if next.tls == current.config.tls { current.tls.clone() } else { prepare_tls(&next, &mut authority)? };
        self.settings.send_replace(Arc::new(Active { config: next, tls }));
        Ok(())
    }

    /// The certificate authority's certificate, if TLS has ever been on.
    pub(crate) fn authority(&self) -> Option<Arc<Authority>> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether requests are still answered with 503 because the application is not up.
    pub(crate) fn is_starting(&self) -> bool {
        self.active().config.startup.ready_after.is_some_and(|after| self.started.elapsed() < after)
    }

    /// The truth that a readiness endpoint may or may not tell.
    pub(crate) fn is_ready(&self) -> bool {
        self.listening.load(Ordering::Relaxed) && !self.is_starting() && self.phase() == Phase::Running
    }

    /// Counts answered requests towards `lifetime.exit_after_requests`.
    pub(crate) fn answered(&self, requests: u64) {
        if requests == 0 {
            return;
        }
        let total = self.answered.fetch_add(requests, Ordering::Relaxed) + requests;
        let lifetime = &self.active().config.lifetime;
        if lifetime.exit_after_requests.is_some_and(|limit| total >= limit) {
            self.enter(Phase::Stopped(Exit { code: lifetime.exit_code }));
        }
    }
}

/// Certificates for these settings. The authority is kept: a client that trusts it goes on trusting it.
fn prepare_tls(config: &Config, authority: &mut Option<Arc<Authority>>) -> Result<Option<Arc<ServerConfig>>, Error> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let authority = match authority {
        Some(authority) => authority,
        None => authority.insert(Arc::new(certificate::authority(tls.ca_key_file.as_deref())?)),
    };
    certificate::server_config(tls, authority).map(Some)
}

/// A running backend. Dropping it closes every socket.
#[derive(Debug)]
pub struct Backend {
    shared: Arc<Shared>,
    admin: SocketAddr,
    health: Option<SocketAddr>,
}

impl Backend {
    /// Starts a backend in this tokio runtime. Returns when its ports are open (the main port: unless the settings say later or never).
    pub async fn start(config: Config) -> Result<Backend, Error> {
        Backend::start_as(config, served_by(), false).await
    }

    /// `log`: write the journal to standard output as well.
    pub(crate) async fn start_as(config: Config, served_by: String, log: bool) -> Result<Backend, Error> {
        config.validate()?;
        let mut authority = None;
        let tls = prepare_tls(&config, &mut authority)?;
        let health_listen = config.server.health_listen;
        let admin_listen = config.admin.listen;
        let shared = Arc::new(Shared {
            settings: watch::Sender::new(Arc::new(Active { config, tls })),
            phase: watch::Sender::new(Phase::Running),
            journal: Journal::new(log),
            metrics: Metrics::default(),
            served_by,
            started: Instant::now(),
            listening: AtomicBool::new(false),
            address: Mutex::new(None),
            connections: TaskTracker::new(),
            slots: Arc::default(),
            gone: CancellationToken::new(),
            authority: Mutex::new(authority),
            answered: AtomicU64::new(0),
        });
        // A failure on the way ends the tasks that were started before it.
        let guard = shared.gone.clone().drop_guard();
        let admin = admin::start(&shared, admin_listen)?;
        let health = health_listen.map(|address| listener::start_health(&shared, address)).transpose()?;
        listener::start_main(&shared).await?;
        process::start_timers(&shared);
        guard.disarm();
        Ok(Backend { shared, admin, health })
    }

    /// Address of the main port, once it has been opened for the first time.
    pub fn address(&self) -> Option<SocketAddr> {
        *self.shared.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Address of the admin port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Address of the separate health port.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health
    }

    /// What the backend has seen.
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// The settings in force.
    pub fn config(&self) -> Config {
        self.shared.active().config.clone()
    }

    /// The certificate authority, if TLS has ever been on.
    pub fn authority(&self) -> Option<Arc<Authority>> {
        self.shared.authority()
    }

    /// Puts other settings in force. What open connections make of it is said at each setting.
    pub fn switch(&self, next: Config) -> Result<(), Error> {
        next.validate()?;
        self.shared.switch(|_| Ok(next))
    }

    /// Changes some settings, e.g. `("server.keepalive_idle_timeout", "2s")`; see [`Config::assigned`].
    pub fn set<'a>(&self, assignments: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), Error> {
        self.shared.switch(|config| config.assigned(assignments))
    }

    /// What SIGTERM does.
    pub fn terminate(&self) {
        process::terminate(&self.shared);
    }

    /// Ends the backend at once.
    pub(crate) fn stop(&self, exit: Exit) {
        self.shared.enter(Phase::Stopped(exit));
    }

    /// Waits for the backend's end.
    pub async fn stopped(&self) -> Exit {
        let mut phases = self.shared.phases();
        loop {
            if let Phase::Stopped(exit) = *phases.borrow_and_update() {
                return exit;
            }
            if phases.changed().await.is_err() {
                return Exit { code: 0 };
            }
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.gone.cancel();
    }
}

/// The pod's name: from the downward API, else the host name, which in Kubernetes is the pod's name too.
pub(crate) fn served_by() -> String {
    let from = |name| std::env::var(name).ok().filter(|name: &String| !name.is_empty());
    from("POD_NAME")
        .or_else(|| nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()))
        .or_else(|| from("HOSTNAME"))
        .unwrap_or_else(|| "unknown".to_owned())
}
