//! Field ownership (`metadata.managedFields`): who set what, and server-side apply with its conflicts.

mod merge;
mod ownership;
mod sets;

pub(super) use ownership::{Write, apply, written};
