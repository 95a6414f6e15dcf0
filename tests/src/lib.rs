//! What the end-to-end tests share: the `gatelab` binary under test, a private home for each test, and a view of the
//! processes that a run leaves behind.

#![allow(clippy::expect_used, reason = "a test support crate: a panic fails the test, which is its way to report")]

mod binary;
mod home;
mod leftovers;
mod skipped;
pub mod transcript;

pub use binary::gatelab_path;
pub use home::Home;
pub use leftovers::{Leftovers, adopt_orphans, mounts};
pub use skipped::skipped;
