//! One started container.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::log_file::{Stream, record};
use super::order::ProcessOrder;
use super::process::{Handle, Running};
use super::usage;
use crate::runtime::ExitStatus;

/// How often a container with a memory limit is looked at. The kernel would act on the allocation itself; what exceeds
/// the limit for less than this goes unnoticed.
const MEMORY_PERIOD: Duration = Duration::from_millis(50);

/// With the first process of a pid namespace all others are dead, so the streams end with it; this bounds the wait for
/// a log file that cannot be written fast enough.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

pub(super) struct Container {
    pub pod_uid: String,
    pub handle: Handle,
    pub pid_namespace: String,
    /// What further processes in it inherit.
    pub process: ProcessOrder,
    pub exit: watch::Receiver<Option<ExitStatus>>,
}

/// Output streams of a container, with the names they have in the log.
pub(super) type Outputs = Vec<(Box<dyn AsyncRead + Send + Unpin>, Stream)>;

impl Container {
    /// Follows a started process to its end: output into the log, memory below the limit, exit status to those who ask.
    pub fn follow(
        running: Running,
        pod_uid: String,
        process: ProcessOrder,
        outputs: Outputs,
        log: File,
        memory_limit: Option<u64>,
    ) -> Arc<Self> {
        let started_at = Timestamp::now();
        let (sender, exit) = watch::channel(None);
        let Running { handle, pid_namespace, ended, .. } = running;
        let container = Arc::new(Self { pod_uid, handle, pid_namespace, process, exit });

        let log = Arc::new(log);
        let mut recording = JoinSet::new();
        for (output, stream) in outputs {
            let log = Arc::clone(&log);
            recording.spawn(async move {
                if let Err(error) = record(output, stream, log).await {
                    tracing::warn!(%error, "a container's output could not be logged");
                }
            });
        }
        let exceeded = Arc::new(AtomicBool::new(false));
        if let Some(limit) = memory_limit {
            tokio::spawn(watch_memory(Arc::clone(&container), limit, Arc::clone(&exceeded)));
        }
        tokio::spawn(async move {
            let Ok(ended) = ended.await else { return };
            let all_logged = async { while recording.join_next().await.is_some() {} };
            if tokio::time::timeout(LAST_OUTPUT, all_logged).await.is_err() {
                tracing::warn!("a container's last output was not logged in time");
            }
            let oom_killed = exceeded.load(Ordering::Acquire) && ended.signal == Some(libc::SIGKILL);
            let finished_at = ended.at.max(started_at);
            sender.send_replace(Some(ExitStatus { exit_code: ended.exit_code, signal: ended.signal, oom_killed, started_at, finished_at }));
        });
        container
    }

    pub fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// `None` when the executor is shutting down.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|status| status.clone())
    }
}

async fn watch_memory(container: Arc<Container>, limit: u64, exceeded: Arc<AtomicBool>) {
    let mut period = tokio::time::interval(MEMORY_PERIOD);
    loop {
        period.tick().await;
        if container.has_ended() {
            return;
        }
        let namespace = container.pid_namespace.clone();
        let Ok(usage) = tokio::task::spawn_blocking(move || usage::of_namespace(&namespace)).await else { return };
        if usage.resident > limit {
            exceeded.store(true, Ordering::Release);
            let _ = container.handle.signal(libc::SIGKILL);
            return;
        }
    }
}
