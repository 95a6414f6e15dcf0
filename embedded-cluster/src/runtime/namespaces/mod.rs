//! The container runtime of the lab: every container a process in pid, mount, uts and ipc namespaces of its own, inside
//! the pod's network namespace.

mod attachment;
mod capabilities;
mod container;
mod log_file;
mod memory;
mod order;
mod process;
mod program;
mod reaper;
mod root;
mod runtime;
mod shim;
mod terminal;
mod usage;

pub(super) use program::DEFAULT_PATH;
pub use reaper::Reaper;
pub use runtime::{NamespaceRuntime, RuntimeConfig};
pub(crate) use shim::{SHIM_COMMAND, run as run_shim, take_channel};
