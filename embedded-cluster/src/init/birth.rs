//! From the process that the launcher started to PID 1 of a new pid namespace.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getgid, getuid, setsid};

use super::{barrier, lab, mounts};
use crate::cluster::{LaunchMessage, Lifetime, Request, StateDir};
use crate::handover::Channel;
use crate::runtime::namespaces::take_channel;

/// Exit codes of the lab's processes; seen by the launcher's log and by nobody else.
const FAILED: u8 = 1;
const PANICKED: i32 = 101;

pub(super) fn run() -> u8 {
    let Ok(channel) = take_channel() else { return FAILED };
    let Ok(Some((request, descriptors))) = channel.receive::<Request>() else { return FAILED };
    // A session of its own: what the terminal sends to the launcher's process group (Ctrl-C, hang-up) is for the
    // launcher to deal with.
    let _ = setsid();
    if let Err((action, errno)) = make_namespaces() {
        let _ = channel.send(&LaunchMessage::Forbidden(barrier::explain(action, errno)), &[]);
        return FAILED;
    }
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() } {
        Err(errno) => {
            let _ = channel.send(&LaunchMessage::Failed { detail: format!("fork the first process: {}", errno.desc()) }, &[]);
            FAILED
        }
        Ok(ForkResult::Parent { child }) => {
            let told = channel.send(&LaunchMessage::Born { pid: child.as_raw() }, &[]);
            // Held by the child alone from here on: they close when it dies.
            drop((channel, descriptors));
            match request.config.lifetime {
                Lifetime::Detached => u8::from(told.is_err()),
                Lifetime::Attached => wait_for(child),
            }
        }
        Ok(ForkResult::Child) => first_process(channel, request, descriptors),
    }
}

fn make_namespaces() -> Result<(), (&'static str, Errno)> {
    let (uid, gid) = (getuid(), getgid());
    let own = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    match unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => {
            // user_namespaces(7): an ordinary user may map one group only after giving up setgroups.
            write_map("/proc/self/setgroups", "deny")?;
            write_map("/proc/self/uid_map", &format!("0 {uid} 1"))?;
            write_map("/proc/self/gid_map", &format!("0 {gid} 1"))?;
        }
        // Root can make the other namespaces without one.
        Err(_) if uid.is_root() && unshare(own).is_ok() => return die_with_parent(),
        Err(errno) => return Err(("make a user namespace", errno)),
    }
    unshare(own).map_err(|errno| ("make namespaces inside the user namespace", errno))?;
    die_with_parent()
}

/// Set after the user namespace is made, because a change of credentials clears it.
fn die_with_parent() -> Result<(), (&'static str, Errno)> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(|errno| ("ask to die with the parent", errno))
}

fn write_map(path: &str, content: &str) -> Result<(), (&'static str, Errno)> {
    std::fs::write(path, content)
        .map_err(|error| ("map the user into the user namespace", error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)))
}

/// Lives as long as the lab's first process, so that this is a child of the launcher all the time and dies with it.
fn wait_for(child: Pid) -> u8 {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return u8::try_from(code).unwrap_or(FAILED),
            Ok(WaitStatus::Signaled(..)) => return FAILED,
            Err(Errno::EINTR) | Ok(_) => {}
            Err(_) => return FAILED,
        }
    }
}

fn first_process(channel: Channel, request: Request, lock: Vec<OwnedFd>) -> u8 {
    let channel = Arc::new(channel);
    let attached = request.config.lifetime == Lifetime::Attached;
    if attached && let Err((action, errno)) = die_with_parent() {
        let _ = channel.send(&LaunchMessage::Failed { detail: format!("{action}: {}", errno.desc()) }, &[]);
        return FAILED;
    }
    end_on_panic();
    // A plain thread: it must notice the launcher's end even when the executor is stuck.
    let lifeline = Arc::clone(&channel);
    let watching = std::thread::Builder::new().name("lifeline".to_owned()).stack_size(64 * 1024).spawn(move || {
        match lifeline.receive::<Lifetime>() {
            // Released: the lab lives on without the launcher.
            Ok(Some((Lifetime::Detached, _))) => {}
            // SAFETY: ends the process at once, and the kernel ends all others of the pid namespace with it.
            _ => unsafe { libc::_exit(0) },
        }
    });
    let brought_up = match watching {
        Err(error) => Err(LaunchMessage::Failed { detail: format!("start the lifeline: {error}") }),
        Ok(_) => bring_up(&channel, request),
    };
    // Held until now: it tells others that the lab lives.
    drop(lock);
    match brought_up {
        Ok(()) => 0,
        Err(message) => {
            tracing::error!(?message, "the lab ends");
            let _ = channel.send(&message, &[]);
            FAILED
        }
    }
}

fn bring_up(channel: &Arc<Channel>, request: Request) -> Result<(), LaunchMessage> {
    let failed = |detail: String| LaunchMessage::Failed { detail };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_max_level(tracing::Level::INFO).init();
    let state_dir = StateDir::at(&request.state_dir);
    let mounts = mounts::set_up(&state_dir.memory(), &request.executable).map_err(|(action, errno)| match errno {
        Errno::EPERM | Errno::EACCES => LaunchMessage::Forbidden(barrier::explain(action, errno)),
        errno => failed(format!("{action}: {}", errno.desc())),
    })?;
    tracing::info!("the lab's mounts are made");
    // Many pods and connections in one process; containers inherit it, as they would inherit containerd's.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    // SAFETY: sets an option of the allocator. An arena per thread would cost memory that is never given back.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .map_err(|error| failed(format!("start the executor: {error}")))?;
    let outcome = executor.block_on(lab::run(request, state_dir, mounts, Arc::clone(channel)));
    // Not waiting for blocking work: the process ends, and with it everything.
    executor.shutdown_background();
    outcome.map_err(failed)
}

/// A panic in one task would leave a lab that looks alive and does half its work: a lie to every test that uses it.
fn end_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        // SAFETY: ends the process; what is lost is lost anyway.
        unsafe { libc::_exit(PANICKED) }
    }));
}
