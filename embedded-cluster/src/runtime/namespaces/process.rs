//! Starting one process through a shim, from the runtime's side.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use tokio::sync::oneshot;

use super::order::{Failure, Order, Reply};
use super::reaper::{Ended, Reaper};
use super::shim::SHIM_COMMAND;
use crate::handover::Channel;
use crate::runtime::RuntimeError;

/// A process that runs its command.
#[derive(Debug)]
pub(super) struct Running {
    pub handle: Handle,
    pub mount_namespace: String,
    pub terminal: Option<OwnedFd>,
    pub ended: oneshot::Receiver<Ended>,
}

/// Names a process for signals: no other process can come to have the same pidfd.
#[derive(Debug)]
pub(super) struct Handle(OwnedFd);

impl Handle {
    pub fn signal(&self, number: i32) -> Result<(), Errno> {
        // SAFETY: plain system call; the information argument may be null.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), number, std::ptr::null::<libc::siginfo_t>(), 0) };
        Errno::result(result).map(drop)
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has the order carried out; returns once the command was executed, or with the reason why not. Blocks for the
/// milliseconds that takes. `theirs` are the descriptors for the order; they are closed here in every case, so that the
/// streams end when the process does.
pub(super) fn start(executable: &Path, reaper: &Reaper, order: &Order, theirs: Vec<OwnedFd>) -> Result<Running, Failure> {
    let io = |action: &'static str| move |error: io::Error| Failure::system(action, error);
    let (channel, shim_end) = Channel::pair().map_err(io("connect to the shim"))?;
    let mut command = Command::new(executable);
    command.arg(SHIM_COMMAND).env_clear().current_dir("/").stdin(Stdio::from(shim_end)).stdout(Stdio::null());
    // Not waited for here: the reaper takes every child.
    let shim = command.spawn().map_err(io("start the shim"))?;
    drop((shim, command));
    let borrowed: Vec<BorrowedFd<'_>> = theirs.iter().map(OwnedFd::as_fd).collect();
    channel.send(order, &borrowed).map_err(io("give the shim its order"))?;
    drop(theirs);

    let mut born: Option<(Handle, String, oneshot::Receiver<Ended>)> = None;
    let mut terminal = None;
    loop {
        let reply = channel.receive::<Reply>().map_err(io("hear from the shim"))?;
        match reply {
            Some((Reply::Born { pid, mount_namespace }, mut descriptors)) => {
                let handle = descriptors.pop().ok_or_else(|| Failure::system("hear from the shim", "no pidfd came"))?;
                let ended = reaper.claim(pid);
                born = Some((Handle(handle), mount_namespace, ended));
                let _ = channel.send(&(), &[]);
            }
            Some((Reply::Terminal, mut descriptors)) => terminal = descriptors.pop(),
            Some((Reply::Failed(failure), _)) => return Err(failure),
            None => {
                let (handle, mount_namespace, ended) = born.ok_or_else(|| Failure::system("start the process", "the shim ended early"))?;
                return Ok(Running { handle, mount_namespace, terminal, ended });
            }
        }
    }
}

impl Failure {
    pub(super) fn into_error(self, command: &[String]) -> RuntimeError {
        match self {
            Self::Command { detail } => RuntimeError::CannotStart { command: command.first().cloned().unwrap_or_default(), detail },
            Self::System { action, detail } => RuntimeError::System { action, detail },
        }
    }
}
