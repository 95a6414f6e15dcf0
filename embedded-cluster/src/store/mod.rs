//! The object store: every object of the cluster in memory, with resource versions and watches, as etcd and the
//! registry layer of kube-apiserver hold them.
//!
//! Controllers use it in process through [`Typed`]; the API server uses the untyped [`Store`] with the same rules.

mod admission;
mod allocation;
mod defaults;
mod limit_range;
mod objects;
mod quantities;
mod quota;
mod resource;
mod rules;
mod shard;
mod typed;
mod usage;

pub(crate) use admission::random_suffix;
pub(crate) use allocation::keep_allocated;
pub(crate) use defaults::apply as apply_defaults;
pub use objects::{DeleteOptions, Fault, List, Reason, Store, WatchEvent, WatchStart};
pub(crate) use quantities::amount;
pub use resource::{KnownScope, Resource, Scope};
pub(crate) use rules::keep_system_metadata;
pub use shard::{Change, Changes};
pub use typed::{Event, Typed};

#[cfg(test)]
mod tests;
