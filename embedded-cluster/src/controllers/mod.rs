//! The control loops of kube-controller-manager, kube-scheduler and the network: each watches the store and drives
//! what is towards what is asked. All are level-triggered: they look at the whole current state, never at a difference.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::task::JoinSet;

use crate::network::NetworkPlan;
use crate::store::Store;

mod claim;
mod cron_job;
mod cron_schedule;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_mirror;
mod endpoints;
mod event_expiry;
pub(crate) mod events;
mod garbage;
mod job;
mod job_pods;
mod namespace;
mod network;
mod network_policy;
mod nodes;
pub(crate) mod objects;
pub(crate) mod pods;
pub(crate) mod reconcile;
mod replicaset;
mod revisions;
mod role_aggregation;
mod rollout;
mod scheduler;
mod selectors;
mod stateful_pods;
mod stateful_set;
mod trigger_time;
mod volume_claims;

pub(crate) use cron_schedule::check_schedule;
pub(crate) use network::{has_pod_network, link_of};
pub(crate) use role_aggregation::aggregate_roles;

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
    /// After this long without a renewal of its Lease a node is taken for lost.
    pub node_grace: Duration,
}

/// Starts every controller. They run until the set is dropped.
pub fn spawn_all(store: &Store, config: ControllersConfig) -> JoinSet<()> {
    let pods: objects::Objects<Pod> = objects::Objects::new(store);
    let services: objects::Objects<Service> = objects::Objects::new(store);
    let slices: objects::Objects<EndpointSlice> = objects::Objects::new(store);
    let mut running = JoinSet::new();
    running.spawn(namespace::run(store.clone(), config.ca_certificate));
    running.spawn(deployment::run(store.clone(), pods.clone()));
    running.spawn(replicaset::run(store.clone(), pods.clone()));
    running.spawn(stateful_set::run(store.clone(), pods.clone()));
    running.spawn(daemon_set::run(store.clone(), pods.clone()));
    running.spawn(job::run(store.clone(), pods.clone()));
    running.spawn(cron_job::run(store.clone()));
    running.spawn(disruption::run(store.clone(), pods.clone()));
    running.spawn(volume_claims::run(store.clone(), pods.clone()));
    running.spawn(scheduler::run(store.clone(), pods.clone()));
    running.spawn(endpoints::run(store.clone(), pods.clone(), services.clone(), slices.clone()));
    running.spawn(endpoint_mirror::run(store.clone(), services.clone(), slices.clone()));
    running.spawn(nodes::run(store.clone(), pods.clone(), config.node_grace));
    running.spawn(event_expiry::run(store.clone()));
    running.spawn(garbage::run(store.clone()));
    running.spawn(role_aggregation::run(store.clone()));
    running.spawn(network::run(store.clone(), pods, services, slices, config.apply));
    running
}
