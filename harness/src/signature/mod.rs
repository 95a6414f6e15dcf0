//! Whether what was observed is what a scenario says: pure functions from an expectation and observations to met or unmet
//! items, each with what was expected and what was seen. Nothing here waits, reads or asks.
//!
//! * [`observation`] is everything that a phase of a run can have seen, gathered by the runner;
//! * [`expectation`] is what a scenario says about one gateway, [`Item`] the outcome for one line of it.

pub mod expectation;
pub mod observation;

pub use expectation::{Expectation, Item};
pub use observation::{GatewayLine, HopRecord, JournalRecord, LogRecord, Observations, Phase, TimelineEvent, TimelineKind};
