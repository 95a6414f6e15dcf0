//! The lab's harness: reads scenarios, drives clusters, probes them, matches what was seen with what the scenario says.
//!
//! * [`scenario`] is what a scenario *is*, [`signature`] decides whether evidence shows it; both are pure;
//! * [`kubernetes`] is the one way to every cluster;
//! * [`provider`] makes clusters, [`run`] leads one scenario through its phases on one of them;
//! * [`probe`] sends requests and keeps what each one met, [`hop`] finds the first hop that fails, [`evidence`] gathers the rest;
//! * [`matrix`] is what every gateway does under every fault, as documented or as seen, and how two of them differ;
//! * [`events`] is all that happened; [`terminal`] and [`report`] are views of it;
//! * [`cli`] is one file a command, [`doctor`] says whether this machine can run the lab.

pub mod cli;
pub mod doctor;
pub mod events;
pub mod evidence;
pub mod hop;
pub mod kubernetes;
pub mod matrix;
pub mod probe;
pub mod provider;
pub mod report;
pub mod run;
pub mod scenario;
pub mod signature;
pub mod terminal;
