//! Views of a run's events that last: rendered at its end, and again from `events.jsonl` whenever somebody asks.
//!
//! * [`model`] is what a report says, [`build`] folds events into it;
//! * [`timing`] says where the time went;
//! * [`json`], [`junit`], [`html`] and [`summary`] render it; [`write`] puts all of them into a folder.

pub mod build;
pub mod html;
pub mod json;
pub mod junit;
pub mod model;
pub mod summary;
pub mod timing;
mod write;

pub use model::Report;
pub use write::{ReportError, write};
