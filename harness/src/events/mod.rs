//! All that happened in a run, as owned events: the only seam between the runner and everything that shows a run.
//!
//! * [`event`] lists what can happen, [`file`] appends it to `events.jsonl` and reads it back.

pub mod event;
pub mod file;

pub use event::{Control, Event, EventKind, RunId, SCHEMA, Verdict};
pub use file::{EventFileError, EventReader, EventWriter};
