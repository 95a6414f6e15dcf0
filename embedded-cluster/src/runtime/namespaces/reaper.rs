//! Collects ended children. The lab's first process is PID 1 of its pid namespace: shims are its children, and so are
//! containers and exec'ed processes as soon as their shim has ended.
//!
//! One task waits for all of them on SIGCHLD, so nothing else in this process may wait for children.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// 128 + signal when a signal ended it.
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub at: Timestamp,
}

/// Tells those who asked how their child ended.
#[derive(Clone, Default)]
pub struct Reaper(Arc<Mutex<HashMap<i32, oneshot::Sender<Ended>>>>);

impl Reaper {
    /// Starts reaping, for as long as the executor runs.
    pub fn start() -> io::Result<Self> {
        let reaper = Self::default();
        let mut children = signal(SignalKind::child())?;
        let this = reaper.clone();
        tokio::spawn(async move {
            loop {
                this.reap();
                if children.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// To be called before the process can be reaped, that is before it becomes a child of this one.
    pub(super) fn claim(&self, pid: i32) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, sender);
        receiver
    }

    fn reap(&self) {
        loop {
            let (pid, exit_code, signal) = match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code, None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32, Some(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                // Stops and continues are not asked for.
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(errno) => {
                    tracing::error!(%errno, "waiting for children failed");
                    return;
                }
            };
            let asker = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid.as_raw());
            // Shims are claimed by nobody: what they have to say they say through their channel.
            if let Some(asker) = asker {
                let _ = asker.send(Ended { exit_code, signal, at: Timestamp::now() });
            }
        }
    }
}
