//! `gatelab`: see `gatelab --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The kernel gives new user and pid namespaces to single-threaded processes only, so what this program is as a cluster's
    // first process, as a container's first process or as the doctor's trial comes before any thread is started.
    if let Some(code) = embedded_cluster::run_if_reexecuted() {
        return ExitCode::from(code);
    }
    if let Some(code) = harness::doctor::namespaces::try_all_if_asked() {
        return code;
    }
    harness::cli::main()
}
