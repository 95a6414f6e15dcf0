//! The provider: one cluster or some for all runs of an invocation, one run in each at a time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as PlainMutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::{join_all, try_join_all};
use gateways::GatewayBuild;
use gateways::fetch::Search;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cluster::{self, Cluster};
use super::error::KindError;
use super::tools::{Surroundings, Tools};
use super::{links, ready};
use crate::kubernetes::Kubernetes;
use crate::provider::interface::{ClusterHandle, ClusterRequest, ClusterSetting, HostPorts, Provider, ProviderError};
use crate::provider::named_image::{FoundImage, Looked, MissingImage, NamedImage, find_all};
use crate::provider::{clearing, images};
use crate::scenario::model::Need;

/// kube-proxy writes its rules at most once a second (`minSyncPeriod`, 1 s by default), and tells nobody when it has.
const QUIET: Duration = Duration::from_millis(1500);
/// As [`ClusterSetting::patience`]: a container is started in seconds here, on a busy machine in ten.
pub const PATIENCE: u32 = 4;
/// As [`ClusterSetting::reported_within`]: kubelet relists its containers every second, and a crashed one is started twice before it
/// is in back-off.
pub const REPORTED_WITHIN: Duration = Duration::from_secs(15);
/// Bound of each step of making a cluster. `GATELAB_KIND_WITHIN` has another number of seconds.
const STEP_WITHIN: Duration = Duration::from_secs(300);

/// The cluster is the lab's alone; the mark only tells the lab's objects from Kubernetes' own.
const MARK: &str = "lab";
/// kubeadm's Deployment, which the next run will need as it was.
pub const DNS_STAYS: &str = "the cluster's DNS stays where kubeadm has put it";
/// runc's own part of a container counts: the pod stays in ContainerCreating, and nothing that could be OOM-killed is ever started.
pub const RUNTIME_TOO_LARGE: &str = "the cluster's container runtime does not fit into a memory limit of a few MiB itself";
/// A pod network hears of a pod and its address from the API server, as everybody does; the two of kind let pass what they do not know yet.
pub const POLICY_LATE: &str =
    "the pod network enforces policies on a new pod a moment after its containers have started, and this gateway looks names up at once";
const ONE_NODE: &str = "this cluster has one node that takes pods, so no link between nodes; `--nodes 3` makes two";

/// What a user may choose.
#[derive(Clone, Debug, Default)]
pub struct KindOptions {
    /// At least one.
    pub nodes: u32,
    /// Clusters at the same time, for as many runs; at least one.
    pub clusters: usize,
    /// Run in this cluster, which exists, and leave it there.
    pub reuse: Option<String>,
    /// Leave the new clusters there.
    pub retain: bool,
    /// Name of the new cluster; a unique one without.
    pub name: Option<String>,
    /// In place of packed gateways.
    pub images: Vec<NamedImage>,
}

/// Clusters by kind.
pub struct Kind {
    options: KindOptions,
    /// What is to be taken away at the end.
    made: PlainMutex<Vec<Cluster>>,
    pool: Arc<Pool>,
    /// Once it is known.
    abilities: PlainMutex<Option<Abilities>>,
    looked: PlainMutex<Looked>,
}

/// The clusters that no run is in.
struct Pool {
    free: PlainMutex<Vec<Shared>>,
    /// As many as there are clusters.
    turns: Arc<Semaphore>,
}

/// A cluster that runs take turns in.
struct Shared {
    kubeconfig: PathBuf,
    host_ports: Option<HostPorts>,
    /// The namespaces of the cluster itself.
    own: BTreeSet<String>,
    /// A run has left its objects.
    used: bool,
}

/// A run's turn in a cluster, which goes back to the others when the run lets go.
struct Handle {
    shared: Option<Shared>,
    kubeconfig: PathBuf,
    pool: Arc<Pool>,
    _turn: OwnedSemaphorePermit,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Before the permit goes: whoever gets it next finds a cluster.
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).extend(self.shared.take());
    }
}

/// What a cluster turned out to be.
struct BroughtUp {
    shared: Shared,
    abilities: Abilities,
    looked: Looked,
}

/// Of [`ClusterSetting`].
#[derive(Clone)]
struct Abilities {
    lacking: Vec<(Need, String)>,
    takers: Option<u32>,
}

impl Abilities {
    /// Of a cluster with so many nodes that take pods, whose links cannot be set for the reason `unset`.
    fn of(takers: u32, unset: Option<String>) -> Self {
        let always = [(Need::MovableDns, DNS_STAYS), (Need::TinyMemoryLimits, RUNTIME_TOO_LARGE), (Need::PolicyFromStart, POLICY_LATE)];
        let mut lacking: Vec<(Need, String)> = always.map(|(need, reason)| (need, reason.to_owned())).into();
        lacking.extend(unset.into_iter().flat_map(|reason| [Need::LinkLatency, Need::NodeCut].map(|need| (need, reason.clone()))));
        if takers < 2 {
            lacking.push((Need::SeveralNodes, ONE_NODE.to_owned()));
        }
        Abilities { lacking, takers: Some(takers) }
    }
}

impl Kind {
    pub fn new(options: KindOptions) -> Self {
        let pool = Pool { free: PlainMutex::new(Vec::new()), turns: Arc::new(Semaphore::new(0)) };
        Kind { options, made: PlainMutex::default(), pool: Arc::new(pool), abilities: PlainMutex::default(), looked: PlainMutex::default() }
    }

    fn nodes(&self) -> u32 {
        self.options.nodes.max(1)
    }

    fn clusters(&self) -> usize {
        if self.options.reuse.is_some() { 1 } else { self.options.clusters.max(1) }
    }

    /// Room for every cluster that is to be.
    async fn claim(&self, tools: &Tools, around: &Surroundings) -> Result<Vec<Cluster>, KindError> {
        if let Some(name) = &self.options.reuse {
            let running = cluster::running(tools).await?;
            if !running.contains(name) {
                let running = if running.is_empty() { "none".to_owned() } else { running.join(", ") };
                return Err(KindError::NoSuchCluster { name: name.clone(), running });
            }
            return Ok(vec![Cluster::claim(tools, around, name)?]);
        }
        let mut claimed = Vec::new();
        for _ in 0..self.clusters() {
            let name = self.options.name.clone().unwrap_or_else(cluster::new_name);
            let cluster = Cluster::claim_new(tools, around, &name).await?;
            // Known before anything is begun, so that a half-made cluster is taken away, too.
            self.made.lock().unwrap_or_else(PoisonError::into_inner).push(cluster.clone());
            claimed.push(cluster);
        }
        Ok(claimed)
    }

    async fn bring_up(&self, builds: &[GatewayBuild], tell: &(dyn Fn(String) + Send + Sync)) -> Result<Vec<BroughtUp>, KindError> {
        let around = surroundings()?;
        let within = std::env::var("GATELAB_KIND_WITHIN").ok().and_then(|text| text.parse().ok()).map_or(STEP_WITHIN, Duration::from_secs);
        tell("kind: looking for kind and a container engine".into());
        let tools = Tools::find(&around).await?;
        let clusters = self.claim(&tools, &around).await?;
        let Some(archive) = clusters.first().map(Cluster::archive) else { return Ok(Vec::new()) };
        let packing = pack(archive.clone(), builds.to_vec());
        let making = try_join_all(clusters.iter().map(|cluster| self.make(cluster, &tools, within, tell)));
        let (archive_size, _) = tokio::try_join!(packing, making)?;
        let begun = Instant::now();
        tell(format!("kind: loading images ({} MB)", archive_size >> 20));
        let loaded = try_join_all(clusters.iter().map(|cluster| cluster.load(&archive, within))).await;
        let _ = std::fs::remove_file(archive);
        loaded?;
        tell(format!("kind: images loaded in {:.1} s; waiting for nodes and DNS", begun.elapsed().as_secs_f64()));
        try_join_all(clusters.iter().map(|cluster| self.furnish(cluster, within, tell))).await
    }

    async fn make(
        &self,
        cluster: &Cluster,
        tools: &Tools,
        within: Duration,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), KindError> {
        if self.options.reuse.is_some() {
            return cluster.adopt().await;
        }
        let image = tools.node_image().await?;
        tell(format!("kind: creating cluster {} of {} node(s)", cluster.name, self.nodes()));
        let begun = Instant::now();
        cluster.create(self.nodes(), image.as_deref(), within, tell).await?;
        tell(format!("kind: cluster created with {} in {:.1} s", tools.engine, begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Everything that a cluster needs beside Kubernetes and images.
    async fn furnish(&self, cluster: &Cluster, within: Duration, tell: &(dyn Fn(String) + Send + Sync)) -> Result<BroughtUp, KindError> {
        // Nothing of it is marked: clearing takes away between runs what is, and the agents of the links are to stay.
        let kubernetes = Kubernetes::connect(&cluster.kubeconfig(), None).await?;
        ready::wait(&kubernetes, within).await?;
        let takers = links::taking_pods(&kubernetes).await?;
        let unset = match takers.as_slice() {
            [first, _, ..] => {
                tell("kind: starting the agents of the links".into());
                links::keep_off(&kubernetes, first).await?;
                links::install(&kubernetes).await?
            }
            _ => Some(ONE_NODE.to_owned()),
        };
        let own = match self.options.reuse {
            // What an earlier run left is not the cluster's own.
            Some(_) => ["default", "kube-node-lease", "kube-public", "kube-system", "local-path-storage"].map(str::to_owned).into(),
            None => ready::namespaces(&kubernetes).await?,
        };
        if self.options.reuse.is_some() && !self.options.images.is_empty() {
            clear(&kubernetes, &own).await?;
        }
        let kubernetes = kubernetes.marking(Some(MARK.to_owned()));
        let looked = find_all(&kubernetes, &self.options.images, within, &|what| tell(format!("kind: {what}"))).await?;
        // For people. In runs a port that is given up and asked for again every few seconds would only be one more thing to fail:
        // the API server takes minutes to notice that nobody has it after a request that was broken off.
        let host_ports = if self.options.name.is_some() { cluster.host_ports().await? } else { None };
        let abilities = Abilities::of(u32::try_from(takers.len()).unwrap_or(u32::MAX), unset);
        let shared = Shared { kubeconfig: cluster.kubeconfig(), host_ports, own, used: self.options.reuse.is_some() };
        Ok(BroughtUp { shared, abilities, looked })
    }
}

/// Takes away what a run has left.
async fn clear(kubernetes: &Kubernetes, own: &BTreeSet<String>) -> Result<(), KindError> {
    // First: a node that is cut off ends no pod.
    if links::reset(kubernetes).await? {
        ready::nodes(kubernetes, STEP_WITHIN).await?;
    }
    ready::empty(kubernetes, own).await?;
    // A gateway cannot take over the IngressClass of another: its controller is immutable.
    Ok(clearing::remove_marked(kubernetes, MARK).await?)
}

/// Puts the lab's images into a cluster that somebody else made; `false` when kind does not know it, or is not here.
///
/// # Errors
/// When packing or loading fails.
pub async fn load_into(name: &str, builds: &[GatewayBuild], tell: &(dyn Fn(String) + Send + Sync)) -> Result<bool, KindError> {
    let around = surroundings()?;
    let Ok(tools) = Tools::find(&around).await else { return Ok(false) };
    if !cluster::all(&tools).await?.iter().any(|known| known == name) {
        return Ok(false);
    }
    let folder = tempfile::tempdir_in(&around.cache).map_err(|source| KindError::File {
        what: "a folder for images",
        path: around.cache.clone(),
        source,
    })?;
    let archive = folder.path().join("images.tar");
    let size = pack(archive.clone(), builds.to_vec()).await?;
    tell(format!("kind: loading images into {name} ({} MB)", size >> 20));
    cluster::load(&tools, name, &archive, STEP_WITHIN).await?;
    Ok(true)
}

/// Returns the size of the archive in bytes.
async fn pack(archive: PathBuf, builds: Vec<GatewayBuild>) -> Result<u64, KindError> {
    let packed = tokio::task::spawn_blocking(move || {
        let executable = std::env::current_exe();
        let executable = executable.map_err(|source| images::ImageError::Read { path: "/proc/self/exe".into(), source })?;
        let (layers, all) = images::lab_images(&executable, &builds)?;
        images::write(&archive, &layers, &all)?;
        Ok::<u64, images::ImageError>(std::fs::metadata(&archive).map(|metadata| metadata.len()).unwrap_or_default())
    });
    let ended = |error: tokio::task::JoinError| KindError::Failed {
        what: "packing images".into(),
        status: "ended".into(),
        detail: error.to_string(),
    };
    Ok(packed.await.map_err(ended)??)
}

/// Where this process looks for things.
pub fn surroundings() -> Result<Surroundings, KindError> {
    let search = Search::from_environment().map_err(|error| KindError::Failed {
        what: "finding the cache folder".into(),
        status: "environment".into(),
        detail: error.to_string(),
    })?;
    Ok(Surroundings::of_this_process(search.cache))
}

#[async_trait]
impl Provider for Kind {
    fn name(&self) -> &str {
        "kind"
    }

    fn setting(&self) -> ClusterSetting {
        let found = self.abilities.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What a cluster can do shows when it is there. The first of several nodes is the control plane.
        let foreseen = || match (&self.options.reuse, self.nodes()) {
            (Some(_), _) => Abilities { takers: None, ..Abilities::of(u32::MAX, None) },
            (None, nodes @ ..3) => Abilities::of(1.max(nodes - 1), Some(ONE_NODE.to_owned())),
            (None, nodes) => Abilities::of(nodes - 1, None),
        };
        let Abilities { lacking, takers } = found.unwrap_or_else(foreseen);
        let at_once = Some(self.clusters());
        ClusterSetting { quiet: QUIET, lacking, takers, at_once, patience: PATIENCE, reported_within: REPORTED_WITHIN }
    }

    async fn prepare(&self, builds: &[GatewayBuild], tell: &(dyn Fn(String) + Send + Sync)) -> Result<(), ProviderError> {
        let mut all = Vec::new();
        for up in self.bring_up(builds, tell).await? {
            // All are made alike.
            self.abilities.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(up.abilities);
            *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = up.looked;
            all.push(up.shared);
        }
        let count = all.len();
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
        self.pool.turns.add_permits(count);
        Ok(())
    }

    fn found_images(&self) -> Vec<FoundImage> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).found.clone()
    }

    fn missing_images(&self) -> Vec<MissingImage> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).missing.clone()
    }

    /// One of the clusters that were prepared, emptied of what the last run left. Everything about it is as it was prepared, whatever
    /// the request says of nodes and images.
    async fn create(&self, _request: &ClusterRequest) -> Result<Box<dyn ClusterHandle>, ProviderError> {
        if self.pool.turns.is_closed() || self.abilities.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return Err(KindError::NotPrepared.into());
        }
        let turn = Arc::clone(&self.pool.turns).acquire_owned().await.map_err(|_| KindError::NotPrepared)?;
        let shared = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or(KindError::NotPrepared)?;
        let (kubeconfig, was_used) = (shared.kubeconfig.clone(), shared.used);
        let own = shared.own.clone();
        // From here on it goes back by itself, also when clearing fails or is given up; it counts as used then.
        let shared = Some(Shared { used: true, ..shared });
        let handle = Handle { shared, kubeconfig, pool: Arc::clone(&self.pool), _turn: turn };
        if was_used {
            let kubernetes = Kubernetes::connect(&handle.kubeconfig, None).await.map_err(KindError::from)?;
            clear(&kubernetes, &own).await?;
        }
        Ok(Box::new(handle))
    }

    async fn end(&self) -> Result<Option<String>, ProviderError> {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        self.pool.turns.close();
        let prepared = !std::mem::take(&mut *self.pool.free.lock().unwrap_or_else(PoisonError::into_inner)).is_empty();
        if self.options.retain && prepared {
            let stays = |cluster: &Cluster| {
                format!(
                    "cluster {} stays: kubectl --kubeconfig {} get pods -A; `--reuse {}` runs in it, `gatelab down --all` takes it away",
                    cluster.name,
                    cluster.kubeconfig().display(),
                    cluster.name
                )
            };
            return Ok((!made.is_empty()).then(|| made.iter().map(stays).collect::<Vec<_>>().join("\n")));
        }
        // Every one is tried, whatever becomes of the others.
        let deleted = join_all(made.iter().map(Cluster::delete)).await;
        deleted.into_iter().collect::<Result<Vec<()>, KindError>>()?;
        Ok(None)
    }
}

#[async_trait]
impl ClusterHandle for Handle {
    fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn mark(&self) -> Option<&str> {
        Some(MARK)
    }

    fn host_ports(&self) -> Option<&HostPorts> {
        self.shared.as_ref().and_then(|shared| shared.host_ports.as_ref())
    }

    /// The next run, or the end of the invocation, takes away what is in the cluster.
    async fn delete(self: Box<Self>) -> Result<(), ProviderError> {
        Ok(())
    }
}
