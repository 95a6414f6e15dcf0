//! Memory limits: containers that hold more than theirs are killed, as the kernel's cgroups would.
//!
//! One task looks at all containers with a limit in one pass over /proc, so that the price does not grow with their
//! number, and not at all while there is none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::container::Container;
use super::usage;

/// How often is looked. The kernel would act on the allocation itself; what exceeds the limit for less than this goes
/// unnoticed.
const PERIOD: Duration = Duration::from_millis(50);

/// A container that may hold only so much.
struct Limited {
    container: Weak<Container>,
    limit: u64,
    exceeded: Arc<AtomicBool>,
}

/// By mount namespace.
type Watched = HashMap<String, Limited>;

#[derive(Clone, Default)]
pub(super) struct MemoryWatch(Arc<Mutex<Watched>>);

impl MemoryWatch {
    /// Kills the container when it holds more than `limit` bytes, after setting `exceeded`.
    pub fn add(&self, container: &Arc<Container>, limit: u64, exceeded: Arc<AtomicBool>) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = watched.is_empty();
        watched.insert(container.mount_namespace.clone(), Limited { container: Arc::downgrade(container), limit, exceeded });
        if is_first {
            tokio::spawn(self.clone().watch());
        }
    }

    /// Runs until the last container with a limit has ended.
    async fn watch(self) {
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut known = HashMap::new();
        loop {
            period.tick().await;
            let this = self.clone();
            let looked = tokio::task::spawn_blocking(move || (this.look(&mut known), known)).await;
            match looked {
                Ok((true, seen)) => known = seen,
                _ => return,
            }
        }
    }

    /// One pass; false when nothing is left to watch. `known` keeps which process is in which container: a process does
    /// not change its mount namespace once it runs a command.
    fn look(&self, known: &mut HashMap<i32, Option<String>>) -> bool {
        let mut held: HashMap<String, u64> = HashMap::new();
        let mut seen = HashMap::with_capacity(known.len());
        let limited: Vec<String> = self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        for (pid, folder) in usage::processes() {
            let namespace = match known.remove(&pid) {
                Some(Some(namespace)) => Some(namespace),
                // Looked at again: it may be a shim that has not made its namespaces yet.
                _ => usage::mount_namespace(&folder).filter(|namespace| limited.contains(namespace)),
            };
            if let Some(namespace) = &namespace {
                *held.entry(namespace.clone()).or_default() += usage::anonymous(&folder);
            }
            seen.insert(pid, namespace);
        }
        *known = seen;
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|namespace, limited| {
            let Some(container) = limited.container.upgrade().filter(|container| !container.has_ended()) else { return false };
            if held.get(namespace).is_some_and(|held| *held > limited.limit) {
                limited.exceeded.store(true, Ordering::Release);
                container.kill();
                return false;
            }
            true
        });
        !watched.is_empty()
    }
}
