//! The process between runtime and container: started from this same executable, single-threaded, it makes or joins
//! the container's namespaces, forks the process that becomes the command, and ends.
//!
//! It exists because the lab's first process has many threads: namespaces of users and pids can be changed by
//! single-threaded processes only, and between fork and exec of a threaded one hardly anything may be called. The
//! forked process becomes a child of the lab's first process when the shim ends, which reaps it.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, fork, setsid};

use super::order::{Failure, Order, ProcessOrder, Reply, RootOrder};
use super::{capabilities, program, root};
use crate::handover::Channel;

/// First argument of the executable that makes it a shim.
pub(crate) const SHIM_COMMAND: &str = "container-shim";

/// Exit code of a shim that could not do what it was told; the reason goes through the channel.
const FAILED: u8 = 127;

/// The shim's whole life. The order comes on descriptor 0.
pub(crate) fn run() -> u8 {
    let Ok(channel) = take_channel() else { return FAILED };
    let Ok(Some((order, descriptors))) = channel.receive::<Order>() else { return FAILED };
    match carry_out(&channel, order, descriptors) {
        Ok(()) => 0,
        Err(failure) => {
            let _ = channel.send(&Reply::Failed(failure), &[]);
            FAILED
        }
    }
}

/// Moves the channel out of the way of the command's own standard input.
pub(crate) fn take_channel() -> Result<Channel, Errno> {
    // SAFETY: descriptor 0 is open for the whole life of the process: its parent gave it.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    let moved = fcntl(stdin, FcntlArg::F_DUPFD_CLOEXEC(10))?;
    // SAFETY: F_DUPFD made this descriptor, nobody else has it.
    let channel = Channel::from_fd(unsafe { OwnedFd::from_raw_fd(moved) });
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
    // SAFETY: plain system call; whoever uses descriptor 0 from here on reads /dev/null.
    Errno::result(unsafe { libc::dup2(null.as_raw_fd(), 0) })?;
    Ok(channel)
}

fn carry_out(channel: &Channel, order: Order, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
    let mut descriptors = descriptors.into_iter();
    let mut namespace = || descriptors.next().ok_or_else(|| Failure::system("take the namespace's descriptor", "there is none"));
    let namespaces = namespace()?;
    let (process, container) = match order {
        Order::Start { process, hostname, root, shares_pids } => {
            let mut own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
            system("enter the pod's network namespace", setns(&namespaces, CloneFlags::CLONE_NEWNET))?;
            if shares_pids {
                system("enter the target container's pid namespace", setns(namespace()?, CloneFlags::CLONE_NEWPID))?;
            } else {
                own |= CloneFlags::CLONE_NEWPID;
            }
            system("make the container's namespaces", unshare(own))?;
            (process, Some((hostname, root)))
        }
        Order::Join { process } => {
            // setns(2) with a pidfd: all at once, or none.
            let all = CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWNET;
            system("enter the container's namespaces", setns(&namespaces, all))?;
            (process, None)
        }
    };
    let stdio: Vec<OwnedFd> = descriptors.collect();
    fork_into(channel, &process, container.as_ref(), &stdio)
}

fn fork_into(channel: &Channel, process: &ProcessOrder, container: Option<&(String, RootOrder)>, stdio: &[OwnedFd]) -> Result<(), Failure> {
    // Before the fork: the child's pivot_root moves the root of this process, too, and /proc there knows it not.
    let mount_namespace = mount_namespace();
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match system("fork", unsafe { fork() })? {
        ForkResult::Child => {
            let failure = match become_process(channel, process, container, stdio) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            let _ = channel.send(&Reply::Failed(failure), &[]);
            // SAFETY: ends the process without running what the parent registered for its own end.
            unsafe { libc::_exit(i32::from(FAILED)) }
        }
        ForkResult::Parent { child } => {
            let pidfd = open_pidfd(child.as_raw())?;
            let born = Reply::Born { pid: child.as_raw(), mount_namespace };
            channel.send(&born, &[pidfd.as_fd()]).map_err(|e| Failure::system("report the new process", e))?;
            let _ = channel.receive::<()>();
            Ok(())
        }
    }
}

fn become_process(
    channel: &Channel,
    process: &ProcessOrder,
    container: Option<&(String, RootOrder)>,
    stdio: &[OwnedFd],
) -> Result<std::convert::Infallible, Failure> {
    system("setsid", setsid())?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    if let Some((hostname, root)) = container {
        system("set the hostname", nix::unistd::sethostname(hostname))?;
        root::enter(root)?;
    }
    if process.terminal {
        let terminal = open_terminal(channel)?;
        take_stdio([terminal.as_fd(); 3])?;
    } else if let [stdin, stdout, stderr] = stdio {
        take_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
    }
    let folder = &process.working_dir;
    // runc makes a missing working directory too.
    fs::create_dir_all(folder)
        .and_then(|()| std::env::set_current_dir(folder))
        .map_err(|e| Failure::system(format!("change to the working directory {}", folder.display()), e))?;
    system("give up capabilities", capabilities::keep_only(&process.capabilities))?;
    default_signals();
    Err(program::execute(process))
}

/// A pseudo-terminal of the container's own devpts, so that `ttyname` works in it; its slave side becomes the
/// controlling terminal of this session.
fn open_terminal(channel: &Channel) -> Result<OwnedFd, Failure> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = system("open a terminal", nix::fcntl::open("/dev/pts/ptmx", flags, Mode::empty()))?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the descriptor is a terminal master; the requests take an int pointer, an int and an int.
    let slave = unsafe {
        system("unlock the terminal", Errno::result(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked)))?;
        let slave = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        OwnedFd::from_raw_fd(system("open the terminal's other side", Errno::result(slave))?)
    };
    // SAFETY: as above.
    system("take the controlling terminal", Errno::result(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }))?;
    channel.send(&Reply::Terminal, &[master.as_fd()]).map_err(|e| Failure::system("hand out the terminal", e))?;
    Ok(slave)
}

fn take_stdio(descriptors: [BorrowedFd<'_>; 3]) -> Result<(), Failure> {
    for (target, descriptor) in (0..).zip(descriptors) {
        // SAFETY: plain system call; received descriptors are numbered above 2, so none is overwritten before its turn.
        system("set up standard streams", Errno::result(unsafe { libc::dup2(descriptor.as_raw_fd(), target) }))?;
    }
    Ok(())
}

/// Ignored and blocked signals are inherited through exec; Rust's runtime ignores SIGPIPE, and a command must not.
fn default_signals() {
    for number in Signal::iterator() {
        // SAFETY: resets to the default, no handler of ours is installed. SIGKILL and SIGSTOP refuse, which is right.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// The child's too, which is forked after this process has made it. Empty in a container entered for `exec`, whose
/// /proc does not show this process; nobody asks there.
fn mount_namespace() -> String {
    fs::read_link("/proc/self/ns/mnt").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

fn open_pidfd(pid: i32) -> Result<OwnedFd, Failure> {
    // SAFETY: plain system call; a successful result is a new descriptor of ours.
    let result = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
    let descriptor = system("open a pidfd", result)?;
    let descriptor = i32::try_from(descriptor).map_err(|e| Failure::system("open a pidfd", e))?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn system<T>(action: &str, result: Result<T, Errno>) -> Result<T, Failure> {
    result.map_err(|errno| Failure::system(action, errno.desc()))
}
