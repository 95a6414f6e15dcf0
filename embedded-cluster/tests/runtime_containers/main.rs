//! The container runtime against the real kernel: every test starts real processes in real namespaces.
//!
//! The test binary becomes PID 1 of a pid namespace first, as a lab's first process is, because containers become its
//! children; and it starts itself again as the runtime's shim. Both need a `main` of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test; clippy knows only those under #[test]")]

mod attach;
mod containers;
mod exec;
mod lab;
mod output;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

fn main() -> ExitCode {
    if let Some(code) = embedded_cluster::run_if_reexecuted() {
        return ExitCode::from(code);
    }
    if lab::is_container_command() {
        return lab::container_command();
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4);
    if let Err(reason) = make_namespaces() {
        report_skipped(&reason);
        return ExitCode::SUCCESS;
    }
    // Removed by the parent, which outlives every test.
    let Ok(folder) = tempfile::tempdir() else { return ExitCode::FAILURE };
    lab::FOLDER.get_or_init(|| folder.path().to_owned());
    // SAFETY: there is one thread up to here.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            if let Err(reason) = mount_own() {
                report_skipped(&reason);
                std::mem::forget(folder);
                return ExitCode::SUCCESS;
            }
            let tests = [containers::tests(), output::tests(), exec::tests(), attach::tests()].into_iter().flatten().collect();
            let conclusion = libtest_mimic::run(&arguments, tests);
            std::mem::forget(folder);
            conclusion.exit_code()
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
        Err(_) => ExitCode::FAILURE,
    }
}

fn report_skipped(reason: &str) {
    eprintln!("skipped: no namespaces on this machine: {reason}");
}

fn make_namespaces() -> Result<(), String> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    match unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => {
            for (path, text) in [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))] {
                std::fs::write(format!("/proc/self/{path}"), text).map_err(|error| format!("{path}: {error}"))?;
            }
        }
        Err(_) if uid.is_root() => {}
        Err(errno) => return Err(format!("unshare(CLONE_NEWUSER): {errno}")),
    }
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).map_err(|errno| format!("unshare: {errno}"))
}

fn mount_own() -> Result<(), String> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(|errno| format!("private mounts: {errno}"))?;
    if mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).is_err() {
        lab::OUTER_PROC.get_or_init(|| ());
    }
    Ok(())
}
