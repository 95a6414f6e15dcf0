//! A lab's first process: born into namespaces of its own (`birth`), then put together from the rooms of this crate
//! (`lab`).

mod barrier;
mod birth;
mod default_objects;
mod lab;
mod mounts;

use crate::runtime::namespaces::{SHIM_COMMAND, run_shim};

/// First argument of the executable that makes it a lab's first process.
pub(crate) const INIT_COMMAND: &str = "cluster-init";

/// Must be called before anything else in `main` of every executable that starts clusters, while the process still has
/// a single thread: when the process was started as part of a cluster, it does that part and gives the exit code.
pub fn run_if_reexecuted() -> Option<u8> {
    match std::env::args_os().nth(1)?.to_str()? {
        INIT_COMMAND => Some(birth::run()),
        SHIM_COMMAND => Some(run_shim()),
        _ => None,
    }
}
