//! The control loops of kube-controller-manager, kube-scheduler and the network: each watches the store and drives
//! what is towards what is asked. All are level-triggered: they look at the whole current state, never at a difference.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::task::JoinSet;

use crate::network::NetworkPlan;
use crate::store::Store;

/// Carries a plan out on the kernel; called again with every changed plan, never concurrently. The error is logged
/// and the plan tried again with the next change or after a second.
pub type ApplyPlan = Arc<dyn Fn(NetworkPlan) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What the controllers need besides the store.
#[derive(Clone)]
pub struct ControllersConfig {
    /// PEM, for the ConfigMap `kube-root-ca.crt` of every namespace.
    pub ca_certificate: String,
    /// Where network plans go.
    pub apply: ApplyPlan,
}

/// Starts every controller. They run until the set is dropped.
pub fn spawn_all(_store: &Store, _config: ControllersConfig) -> JoinSet<()> {
    JoinSet::new()
}
