//! Whether what was observed is what a scenario says: pure functions from an expectation and observations to met or unmet
//! items, each with what was expected and what was seen. Nothing here waits, reads or asks.
//!
//! * [`observation`] is everything that a phase of a run can have seen, gathered by the runner;
//! * [`expectation`] is what a scenario says about one gateway, [`Item`] the outcome for one line of it;
//! * [`client`], [`log`], [`backend`], [`object`] and [`order`] each match one part; [`maker`] tells who made an answer;
//! * [`judgement`] joins them and comes to a verdict.

pub mod backend;
pub mod client;
pub mod expectation;
pub mod judgement;
pub mod log;
pub mod maker;
pub mod object;
pub mod observation;
pub mod order;
pub mod path;

pub use expectation::{Expectation, Item};
pub use judgement::{Controls, evaluate, is_vacuous, verdict};
pub use observation::{GatewayLine, HopRecord, JournalRecord, Observations, Phase, TimelineEvent, TimelineKind};

#[cfg(test)]
mod tests;
