//! The data plane against the real kernel: every test makes a cluster network of its own, sends packets through it and
//! looks at what arrives.
//!
//! The test binary enters a user namespace first, as the lab does, so it needs no root; that must happen before a second
//! thread exists, hence no default test harness.

mod cluster;
mod links;
mod pods;
mod policies;
mod redirects;
mod services;

use std::process::ExitCode;

use embedded_cluster::network::Netns;
use libtest_mimic::{Arguments, Trial};
use nix::sched::{CloneFlags, unshare};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests mostly wait, for packets that do not come.
    arguments.test_threads.get_or_insert(16);
    if let Err(reason) = enter_user_namespace() {
        report_skipped(&reason);
        return ExitCode::SUCCESS;
    }
    // AppArmor may grant the user namespace and yet nothing inside it (Ubuntu since 23.10).
    if let Err(error) = Netns::create("probe")
        && matches!(error.errno(), Some(libc::EPERM | libc::ENOSPC))
    {
        report_skipped(&error.to_string());
        return ExitCode::SUCCESS;
    }
    let tests: Vec<Trial> =
        [pods::tests(), services::tests(), policies::tests(), redirects::tests(), links::tests()].into_iter().flatten().collect();
    libtest_mimic::run(&arguments, tests).exit_code()
}

#[allow(clippy::print_stderr, reason = "the test harness has no word for tests that a machine cannot run")]
fn report_skipped(reason: &str) {
    eprintln!("skipped: no network namespaces on this machine: {reason}");
}

/// Maps this user to root of a new user namespace; root may stay as it is where user namespaces are forbidden.
fn enter_user_namespace() -> Result<(), String> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWUSER) {
        return if uid.is_root() { Ok(()) } else { Err(format!("unshare(CLONE_NEWUSER): {errno}")) };
    }
    let write = |path: &str, text: String| std::fs::write(path, text).map_err(|error| format!("{path}: {error}"));
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}
