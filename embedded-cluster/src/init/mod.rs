//! stub
pub(crate) const INIT_COMMAND: &str = "cluster-init";
/// Called first thing in `main`.
pub fn run_if_reexecuted() -> Option<u8> { None }
