//! Clusters that are there already: whatever a context of the user's kubeconfig leads to.
//!
//! * [`chosen`] finds the context and refuses what does not look like a lab, [`tenancy`] keeps what the lab puts into the cluster
//!   apart from what was there, [`provider`] puts these together.

pub mod chosen;
pub mod provider;
pub mod tenancy;

pub use chosen::{Chosen, ContextError};
pub use provider::{Context, ContextOptions};
pub use tenancy::sweep;
