//! Leading scenarios through their phases on clusters.
//!
//! * [`session`] runs many at once and keeps what happened, [`single`] leads one from its cluster to its verdict;
//! * [`lab`] is a cluster with gateway, application and client in it, [`mirror`] its objects as they are now;
//! * [`change`] makes changes, [`settle`] and [`sync`] wait until they have taken effect, [`probing`] sends requests.

pub mod change;
pub mod emit;
pub mod lab;
pub mod mirror;
pub mod phase;
pub mod probing;
mod seen;
pub mod session;
pub mod settle;
pub mod single;
pub mod sync;
pub mod timeline;

pub use emit::Emitter;
pub use lab::{Lab, LabRequest};
pub use session::{Session, SessionOutcome};
pub use single::RunError;
