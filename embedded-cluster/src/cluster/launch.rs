//! Starting the lab's first process, waiting for it to be ready, stopping it.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::state_dir::{Lock, process_start_time, state_root};
use super::{Barrier, ClusterConfig, ClusterError, LabRecord, Lifetime, StateDir, default_state_dir};
use crate::handover::Channel;
use crate::init::INIT_COMMAND;

/// How long a killed lab may take until the kernel has taken it apart.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long a dead lab's processes may hold its folder.
const CLAIM_WITHIN: Duration = Duration::from_secs(2);

/// What the new process is told; comes with the state folder's lock as a descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub config: ClusterConfig,
    pub state_dir: PathBuf,
    pub executable: PathBuf,
}

/// What the new processes tell the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LaunchMessage {
    /// The first process exists; its pid as the host sees it.
    Born {
        pid: i32,
    },
    Ready {
        api_address: SocketAddr,
        kubeconfig: PathBuf,
    },
    Forbidden(Barrier),
    Failed {
        detail: String,
    },
}

/// A running lab. Dropping an attached lab ends it; a detached one lives on.
#[derive(Debug)]
pub struct Cluster {
    record: LabRecord,
    process: Arc<OwnedFd>,
    /// Present when this process started the lab and it is attached: closing it ends the lab.
    lifeline: Option<Arc<Channel>>,
}

impl Cluster {
    /// Starts a lab and waits until its API answers and all its nodes are ready. When the returned future is dropped,
    /// the half-started lab ends.
    ///
    /// # Errors
    /// See [`ClusterError`]; on an error nothing is left running.
    pub async fn start(config: ClusterConfig) -> Result<Self, ClusterError> {
        check(&config)?;
        let state_dir = StateDir::at(&config.state_dir.clone().unwrap_or_else(|| default_state_dir(&config.name)));
        sweep_abandoned();
        let lock = claim(&state_dir, &config.name).await?;
        let mut launch = Launch::begin(&config, &state_dir, lock).inspect_err(|_| state_dir.remove())?;
        let waited = config.ready_within;
        let outcome = tokio::time::timeout(waited, launch.ready(&config, &state_dir)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            let processes = what_it_waits_in(launch.starter);
            Err(ClusterError::NotReady { waited, log: state_dir.log_tail(), processes })
        });
        drop(launch);
        if outcome.is_err() {
            state_dir.remove();
        }
        outcome
    }

    /// The lab that runs in a state folder.
    ///
    /// # Errors
    /// `NotRunning`; what a dead lab left in the folder is then removed.
    pub fn attach(state_dir: &Path) -> Result<Self, ClusterError> {
        let gone = || ClusterError::NotRunning { state_dir: state_dir.to_owned() };
        let dir = StateDir::at(state_dir);
        let record = dir.read_record().ok_or_else(gone)?;
        let process = open_process(record.pid).filter(|_| record.is_alive());
        let Some(process) = process else {
            dir.remove_if_abandoned();
            return Err(gone());
        };
        Ok(Self { record, process: Arc::new(process), lifeline: None })
    }

    pub fn name(&self) -> &str {
        &self.record.name
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.record.kubeconfig
    }

    /// Of the API server, on the host's loopback; `None` only for an attached-to lab that still comes up.
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.record.api_address
    }

    /// Of the lab's first process; all others end with it.
    pub fn pid(&self) -> i32 {
        self.record.pid
    }

    pub fn state_dir(&self) -> &Path {
        &self.record.state_dir
    }

    pub fn record(&self) -> &LabRecord {
        &self.record
    }

    /// Resolves when the lab has ended, for whatever reason.
    pub async fn ended(&self) {
        let process = Arc::clone(&self.process);
        if let Ok(descriptor) = process.try_clone()
            // SAFETY: an OwnedFd keeps its descriptor open for its whole life.
            && let Ok(descriptor) = unsafe { tokio::io::unix::AsyncFd::register_with_interest(descriptor, tokio::io::Interest::READABLE) }
        {
            let _ = descriptor.readable().await;
        }
    }

    /// The end of the lab's own log.
    pub fn log_tail(&self) -> String {
        StateDir::at(&self.record.state_dir).log_tail()
    }

    /// Kills the lab's first process, and with it the kernel kills all others; returns when they are gone.
    ///
    /// # Errors
    /// `Stop` when the kernel refuses or takes longer than ten seconds.
    pub async fn stop(mut self) -> Result<(), ClusterError> {
        let pid = self.record.pid;
        kill(self.process.as_fd()).map_err(|detail| ClusterError::Stop { pid, detail })?;
        self.lifeline = None;
        tokio::time::timeout(STOP_WITHIN, self.ended())
            .await
            .map_err(|_| ClusterError::Stop { pid, detail: format!("it still runs {STOP_WITHIN:?} after SIGKILL") })?;
        StateDir::at(&self.record.state_dir).remove();
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.lifeline.is_none() {
            return;
        }
        // The process ends by itself when the lifeline closes; the signal spares it the detour. A pidfd becomes
        // readable only once the whole pid namespace is empty: wait a little, so that ports are free again on return.
        if kill(self.process.as_fd()).is_ok() {
            let mut waiting = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut waiting, PollTimeout::from(2_000_u16));
            StateDir::at(&self.record.state_dir).remove();
        }
    }
}

/// This user's labs in the default folder. Folders of labs that were killed are swept.
pub fn list_labs() -> Vec<LabRecord> {
    sweep_abandoned();
    folders().filter_map(|dir| dir.read_record()).filter(LabRecord::is_alive).collect()
}

fn folders() -> impl Iterator<Item = StateDir> {
    std::fs::read_dir(state_root()).into_iter().flatten().flatten().map(|entry| StateDir::at(&entry.path()))
}

fn sweep_abandoned() {
    for dir in folders() {
        // A folder without a record may be one that another launcher is just claiming.
        if dir.read_record().is_some_and(|record| !record.is_alive()) {
            dir.remove_if_abandoned();
        }
    }
}

/// Claims the folder. A lab that was killed a moment ago, or another launcher's sweep, may still hold it: only a living
/// lab is a reason to refuse at once.
async fn claim(state_dir: &StateDir, name: &str) -> Result<Lock, ClusterError> {
    let patience = tokio::time::Instant::now() + CLAIM_WITHIN;
    loop {
        match state_dir.claim(name) {
            Err(ClusterError::AlreadyRunning { .. })
                if !state_dir.read_record().is_some_and(|record| record.is_alive()) && tokio::time::Instant::now() < patience =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            claimed => return claimed,
        }
    }
}

/// A lab that is coming up; dropping it ends it.
struct Launch {
    /// The process that was started; the lab's first process is its child.
    starter: u32,
    channel: Arc<Channel>,
    messages: mpsc::UnboundedReceiver<LaunchMessage>,
    gone: watch::Receiver<bool>,
    armed: bool,
}

impl Launch {
    fn begin(config: &ClusterConfig, state_dir: &StateDir, lock: Lock) -> Result<Self, ClusterError> {
        let executable = match &config.executable {
            Some(path) => path.clone(),
            None => {
                std::env::current_exe().map_err(|source| ClusterError::Launch { executable: PathBuf::from("/proc/self/exe"), source })?
            }
        };
        let failed = |source| ClusterError::Launch { executable: executable.clone(), source };
        let log = state_dir.open_log()?;
        let (ours, theirs) = Channel::pair().map_err(failed)?;
        let channel = Arc::new(ours);
        let request = Request { config: config.clone(), state_dir: state_dir.path().to_owned(), executable: executable.clone() };
        channel.send(&request, &[lock.as_fd()]).map_err(failed)?;

        let (sender, messages) = mpsc::unbounded_channel();
        let (started_sender, started) = std::sync::mpsc::channel();
        let (gone_sender, gone) = watch::channel(false);
        let reading = Arc::clone(&channel);
        let program = executable.clone();
        let detached = config.lifetime == Lifetime::Detached;
        // A thread of its own, that lives as long as the lab: PR_SET_PDEATHSIG is about the thread that started the
        // child, so an executor's thread, which may end any time, must not be the one.
        std::thread::Builder::new()
            .name("lab-launcher".to_owned())
            .spawn(move || {
                let mut command = Command::new(&program);
                command.arg(INIT_COMMAND).stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::from(log)).current_dir("/");
                let mut child = match command.spawn() {
                    Ok(child) => child,
                    Err(source) => return drop(started_sender.send(Err(source))),
                };
                drop((command, lock));
                let _ = started_sender.send(Ok(child.id()));
                while let Ok(Some((message, _))) = reading.receive::<LaunchMessage>() {
                    let released = detached && matches!(message, LaunchMessage::Ready { .. });
                    if sender.send(message).is_err() || released {
                        break;
                    }
                }
                drop((sender, reading));
                let _ = child.wait();
                let _ = gone_sender.send(true);
            })
            .map_err(failed)?;
        let starter = started.recv().map_err(|_| failed(std::io::Error::other("its thread ended")))?.map_err(failed)?;
        Ok(Self { starter, channel, messages, gone, armed: true })
    }

    async fn ready(&mut self, config: &ClusterConfig, state_dir: &StateDir) -> Result<Cluster, ClusterError> {
        let mut born = None;
        loop {
            match self.messages.recv().await {
                Some(LaunchMessage::Born { pid }) => {
                    let process = open_process(pid);
                    let (Some(process), Some(start_time)) = (process, process_start_time(pid)) else { continue };
                    let record = LabRecord {
                        name: config.name.clone(),
                        pid,
                        start_time,
                        lifetime: config.lifetime,
                        api_address: None,
                        kubeconfig: state_dir.kubeconfig(),
                        state_dir: state_dir.path().to_owned(),
                    };
                    state_dir.write_record(&record)?;
                    born = Some((record, process));
                }
                Some(LaunchMessage::Ready { api_address, kubeconfig }) => {
                    let Some((mut record, process)) = born.take() else { continue };
                    record.api_address = Some(api_address);
                    record.kubeconfig = kubeconfig;
                    state_dir.write_record(&record)?;
                    self.armed = false;
                    let lifeline = match config.lifetime {
                        Lifetime::Attached => Some(Arc::clone(&self.channel)),
                        Lifetime::Detached => {
                            // Only now may the lab outlive this process: its record is complete.
                            self.channel.send(&Lifetime::Detached, &[]).map_err(|source| ClusterError::BringUp {
                                detail: format!("letting go of the lab: {source}"),
                                log: state_dir.log_tail(),
                            })?;
                            None
                        }
                    };
                    return Ok(Cluster { record, process: Arc::new(process), lifeline });
                }
                Some(LaunchMessage::Forbidden(barrier)) => return Err(ClusterError::NamespacesForbidden(barrier)),
                Some(LaunchMessage::Failed { detail }) => return Err(ClusterError::BringUp { detail, log: state_dir.log_tail() }),
                None => {
                    let detail = "its first process ended".to_owned();
                    let _ = tokio::time::timeout(STOP_WITHIN, self.gone.wait_for(|gone| *gone)).await;
                    return Err(ClusterError::BringUp { detail, log: state_dir.log_tail() });
                }
            }
        }
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        if self.armed {
            // The launcher's thread holds the other reference, blocked in `receive`: shutting down, unlike closing,
            // ends that too, and the lab sees the end of its lifeline.
            let _ = nix::sys::socket::shutdown(self.channel.as_fd().as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
    }
}

fn check(config: &ClusterConfig) -> Result<(), ClusterError> {
    let name = &config.name;
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if name.len() > 63 || !inner || !edge(name.chars().next()) || !edge(name.chars().last()) {
        return Err(ClusterError::InvalidName { name: name.clone() });
    }
    if config.nodes == 0 || config.nodes > 200 {
        return Err(ClusterError::InvalidNodes { nodes: config.nodes });
    }
    Ok(())
}

/// A line for each thread of the process and its descendants: where in the kernel it waits (proc_pid_wchan(5)) and in which
/// system call (proc_pid_syscall(5)). For people who look into a lab that does not come up.
fn what_it_waits_in(starter: u32) -> String {
    let mut lines = Vec::new();
    let mut processes = vec![starter.to_string()];
    while let Some(process) = processes.pop() {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        for thread in threads.map(|thread| thread.path()) {
            let read = |name: &str| std::fs::read_to_string(thread.join(name)).unwrap_or_default().trim().to_owned();
            let call = read("syscall");
            let call = call.split(' ').next().unwrap_or_default();
            lines.push(format!("process {process}, thread {}: {} (system call {call})", read("comm"), read("wchan")));
            processes.extend(read("children").split_whitespace().map(str::to_owned));
        }
    }
    lines.join("\n")
}

/// A handle of the process that no other process can inherit the number of.
fn open_process(pid: i32) -> Option<OwnedFd> {
    // SAFETY: plain system call; a non-negative result is a new descriptor that is ours.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = i32::try_from(descriptor).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: see above.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn kill(process: BorrowedFd<'_>) -> Result<(), String> {
    // SAFETY: plain system call without pointers that are read.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, std::ptr::null::<libc::siginfo_t>(), 0) };
    match nix::errno::Errno::result(result) {
        Ok(_) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for (name, good) in
            [("a", true), ("lab-2", true), ("", false), ("-a", false), ("a-", false), ("A", false), ("a/b", false), ("..", false)]
        {
            assert_eq!(check(&ClusterConfig::new(name)).is_ok(), good, "{name:?}");
        }
    }
}
