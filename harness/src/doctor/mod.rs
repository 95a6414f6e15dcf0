//! Whether this machine can run the lab: each thing is tried, not guessed, and what is missing comes with what to do.
//!
//! * [`check`] is one line of the answer, [`machine`] looks at the machine, [`namespaces`] tries the kernel's features in a
//!   throw-away child process.

pub mod check;
pub mod machine;
pub mod namespaces;

pub use check::{Check, State};
pub use machine::examine;
