//! What an engineer would gather by hand after an incident: the gateway's own log, what the application wrote down, the objects.
//!
//! * [`gateway_log`] reads and joins the gateway's lines, [`journal`] the application's entries (of pods that are gone too);
//! * [`collect`] puts one phase's observations together.

pub mod collect;
pub mod gateway_log;
pub mod journal;

pub use collect::{PhaseWindow, observe};
