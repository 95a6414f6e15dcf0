//! One started container.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::attachment::Attachments;
use super::log_file::{Stream, record};
use super::memory::MemoryWatch;
use super::order::ProcessOrder;
use super::process::{Handle, Running};
use super::usage;
use crate::runtime::ExitStatus;

/// With the first process of a pid namespace all others are dead, so the streams end with it; this bounds the wait for
/// a log file that cannot be written fast enough.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

pub(super) struct Container {
    pub pod_uid: String,
    pub handle: Handle,
    /// By which its processes are known.
    pub mount_namespace: String,
    /// What further processes in it inherit.
    pub process: ProcessOrder,
    pub attachments: Arc<Attachments>,
    pub exit: watch::Receiver<Option<ExitStatus>>,
}

/// What a container's start leaves to be followed.
pub(super) struct Begun {
    pub running: Running,
    pub outputs: Outputs,
    pub log: File,
    pub attachments: Arc<Attachments>,
    /// Its processes are in another container's pid namespace: they do not end with the first of them.
    pub shares_pids: bool,
}

/// Output streams of a container, with the names they have in the log.
pub(super) type Outputs = Vec<(Box<dyn AsyncRead + Send + Unpin>, Stream)>;

impl Container {
    /// Follows a started process to its end: output into the log, memory below the limit, exit status to those who ask.
    pub fn follow(pod_uid: String, process: ProcessOrder, begun: Begun, limit: Option<(u64, &MemoryWatch)>) -> Arc<Self> {
        let Begun { running, outputs, log, attachments, shares_pids } = begun;
        let started_at = Timestamp::now();
        let (sender, exit) = watch::channel(None);
        let Running { handle, mount_namespace, ended, .. } = running;
        let namespace = mount_namespace.clone();
        let container = Arc::new(Self { pod_uid, handle, mount_namespace, process, attachments: attachments.clone(), exit });

        let log = Arc::new(log);
        let mut recording = JoinSet::new();
        for (output, stream) in outputs {
            let (log, attachments) = (Arc::clone(&log), Arc::clone(&attachments));
            recording.spawn(async move {
                if let Err(error) = record(output, stream, log, &attachments).await {
                    tracing::warn!(%error, "a container's output could not be logged");
                }
            });
        }
        let exceeded = Arc::new(AtomicBool::new(false));
        if let Some((limit, watch)) = limit {
            watch.add(&container, limit, Arc::clone(&exceeded));
        }
        tokio::spawn(async move {
            let Ok(ended) = ended.await else { return };
            if shares_pids {
                let _ = tokio::task::spawn_blocking(move || kill_all(&namespace)).await;
            }
            let all_logged = async { while recording.join_next().await.is_some() {} };
            if tokio::time::timeout(LAST_OUTPUT, all_logged).await.is_err() {
                tracing::warn!("a container's last output was not logged in time");
            }
            attachments.close();
            let oom_killed = exceeded.load(Ordering::Acquire) && ended.signal == Some(libc::SIGKILL);
            let finished_at = ended.at.max(started_at);
            sender.send_replace(Some(ExitStatus { exit_code: ended.exit_code, signal: ended.signal, oom_killed, started_at, finished_at }));
        });
        container
    }

    /// SIGKILL for all of it.
    pub fn kill(&self) {
        let _ = self.handle.signal(libc::SIGKILL);
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

/// Ends what the first process left behind in a pid namespace that lives on. Blocks.
#[allow(clippy::disallowed_methods, reason = "on a thread of its own; nothing tells when a process that is not ours is gone")]
fn kill_all(mount_namespace: &str) {
    loop {
        let left = usage::processes().filter(|(_, folder)| usage::mount_namespace(folder).is_some_and(|of| of == mount_namespace));
        let killed = left.filter(|(pid, _)| nix::sys::signal::kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok()).count();
        if killed == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
