//! The life of the process: its end by signal, by time, or by number of requests.
//!
//! The backend is the first process of its container, for which the kernel has no default actions: a signal without a handler is
//! ignored (pid_namespaces(7)). So every signal that means something gets a handler.

use std::sync::Arc;

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    time::{sleep, sleep_until},
};

use crate::{
    Error,
    backend::{Phase, Shared},
    config::Shutdown,
};

/// How the backend ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code that the process is to give.
    pub code: u8,
}

/// What a shell and a container runtime report for a process that SIGTERM killed: 128 + 15.
const KILLED_BY_SIGTERM: Exit = Exit { code: 143 };
/// 128 + 2.
pub(crate) const KILLED_BY_SIGINT: Exit = Exit { code: 130 };

/// The signals that a backend handles.
pub(crate) struct Signals {
    pub(crate) terminate: Signal,
    pub(crate) interrupt: Signal,
}

impl Signals {
    /// Installs the handlers.
    pub(crate) fn install() -> Result<Signals, Error> {
        let install = |kind, name| signal(kind).map_err(|source| Error::Signal { signal: name, source });
        Ok(Signals { terminate: install(SignalKind::terminate(), "SIGTERM")?, interrupt: install(SignalKind::interrupt(), "SIGINT")? })
    }
}

/// Starts the clock of `lifetime.exit_after`, which follows changes of the settings.
pub(crate) fn start_timers(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let mut settings = shared.settings();
        loop {
            let lifetime = settings.borrow_and_update().config.lifetime.clone();
            let end = async {
                match lifetime.exit_after {
                    Some(after) => sleep_until(shared.started + after).await,
                    None => std::future::pending().await,
                }
            };
            select! {
                () = shared.gone.cancelled() => return,
                () = end => return shared.enter(Phase::Stopped(Exit { code: lifetime.exit_code })),
                changed = settings.changed() => if changed.is_err() { return },
            }
        }
    });
}

/// What `server.shutdown` wants done on SIGTERM.
pub(crate) fn terminate(shared: &Arc<Shared>) {
    let server = shared.active().config.server.clone();
    match server.shutdown {
        // Mechanism: the process goes, and the kernel closes its sockets: FIN, or RST where requests lie unread.
        Shutdown::Exit => shared.enter(Phase::Stopped(KILLED_BY_SIGTERM)),
        // Mechanism: the listener is closed first (its queue is reset), then requests in flight are finished.
        Shutdown::Finish => {
            tokio::spawn(finish(shared.clone()));
        }
        // Mechanism: serving goes on while the rest of the cluster learns that this pod is leaving.
        Shutdown::Drain => {
            let shared = shared.clone();
            if shared.phase() == Phase::Running {
                shared.enter(Phase::Draining);
                tokio::spawn(async move {
                    select! {
                        () = shared.gone.cancelled() => {}
                        () = sleep(server.drain_timeout) => finish(shared.clone()).await,
                    }
                });
            }
        }
        Shutdown::Ignore => {}
    }
}

async fn finish(shared: Arc<Shared>) {
    shared.enter(Phase::Finishing);
    shared.connections.close();
    select! {
        () = shared.gone.cancelled() => {}
        () = shared.connections.wait() => shared.enter(Phase::Stopped(Exit { code: 0 })),
    }
}
