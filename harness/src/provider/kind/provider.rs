//! The provider: one cluster for all runs of an invocation, one run in it at a time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as PlainMutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gateways::GatewayBuild;
use gateways::fetch::Search;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::cluster::{self, Cluster};
use super::error::KindError;
use super::tools::{Surroundings, Tools};
use super::{links, ready};
use crate::kubernetes::Kubernetes;
use crate::provider::interface::{ClusterHandle, ClusterRequest, ClusterSetting, HostPorts, Provider, ProviderError};
use crate::provider::{clearing, images};
use crate::scenario::model::Need;

/// kube-proxy writes its rules at most once a second (`minSyncPeriod`, 1 s by default), and tells nobody when it has.
const QUIET: Duration = Duration::from_millis(1500);
/// Bound of each step of making a cluster. `GATELAB_KIND_WITHIN` has another number of seconds.
const STEP_WITHIN: Duration = Duration::from_secs(300);

/// The cluster is the lab's alone; the mark only tells the lab's objects from Kubernetes' own.
const MARK: &str = "lab";
const ONE_NODE: &str = "this cluster has one node that takes pods, so no link between nodes; `--nodes 3` makes two";

/// What a user may choose.
#[derive(Clone, Debug, Default)]
pub struct KindOptions {
    /// At least one.
    pub nodes: u32,
    /// Run in this cluster, which exists, and leave it there.
    pub reuse: Option<String>,
    /// Leave the new cluster there.
    pub retain: bool,
    /// Name of the new cluster; a unique one without.
    pub name: Option<String>,
}

/// Clusters by kind.
pub struct Kind {
    options: KindOptions,
    /// What is to be taken away at the end.
    made: PlainMutex<Option<Cluster>>,
    shared: Arc<Mutex<Option<Shared>>>,
    /// Once it is known.
    lacking: PlainMutex<Option<Vec<(Need, String)>>>,
}

/// The cluster that runs take turns in.
struct Shared {
    kubeconfig: PathBuf,
    host_ports: Option<HostPorts>,
    /// The namespaces of the cluster itself.
    own: BTreeSet<String>,
    /// A run has left its objects.
    used: bool,
}

struct Handle {
    kubeconfig: PathBuf,
    host_ports: Option<HostPorts>,
    /// The next run waits until this one lets go.
    _turn: OwnedMutexGuard<Option<Shared>>,
}

impl Kind {
    pub fn new(options: KindOptions) -> Self {
        Kind { options, made: PlainMutex::new(None), shared: Arc::new(Mutex::new(None)), lacking: PlainMutex::new(None) }
    }

    fn nodes(&self) -> u32 {
        self.options.nodes.max(1)
    }

    async fn bring_up(&self, builds: &[GatewayBuild], tell: &(dyn Fn(String) + Send + Sync)) -> Result<Shared, KindError> {
        let around = surroundings()?;
        let within = std::env::var("GATELAB_KIND_WITHIN").ok().and_then(|text| text.parse().ok()).map_or(STEP_WITHIN, Duration::from_secs);
        tell("kind: looking for kind and a container engine".into());
        let tools = Tools::find(&around).await?;
        let cluster = match &self.options.reuse {
            Some(name) => {
                let running = cluster::running(&tools).await?;
                if !running.contains(name) {
                    let running = if running.is_empty() { "none".to_owned() } else { running.join(", ") };
                    return Err(KindError::NoSuchCluster { name: name.clone(), running });
                }
                Cluster::claim(&tools, &around, name)?
            }
            None => {
                let name = self.options.name.clone().unwrap_or_else(cluster::new_name);
                if self.options.name.is_some() && cluster::running(&tools).await?.contains(&name) {
                    return Err(KindError::ClusterExists { name });
                }
                Cluster::claim(&tools, &around, &name)?
            }
        };
        if self.options.reuse.is_none() {
            // Known before anything is begun, so that a half-made cluster is taken away, too.
            *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(cluster.clone());
        }
        let packing = pack(cluster.archive(), builds.to_vec());
        let making = async {
            if self.options.reuse.is_some() {
                return cluster.adopt().await;
            }
            let image = tools.node_image().await?;
            tell(format!("kind: creating cluster {} of {} node(s)", cluster.name, self.nodes()));
            let begun = Instant::now();
            cluster.create(self.nodes(), image.as_deref(), within, tell).await?;
            tell(format!("kind: cluster created with {} in {:.1} s", tools.engine, begun.elapsed().as_secs_f64()));
            Ok(())
        };
        let (archive_size, ()) = tokio::try_join!(packing, making)?;
        let begun = Instant::now();
        tell(format!("kind: loading images ({} MB)", archive_size >> 20));
        let loaded = cluster.load(&cluster.archive(), within).await;
        let _ = std::fs::remove_file(cluster.archive());
        loaded?;
        tell(format!("kind: images loaded in {:.1} s; waiting for nodes and DNS", begun.elapsed().as_secs_f64()));
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
        // For people. In runs a port that is given up and asked for again every few seconds would only be one more thing to fail:
        // the API server takes minutes to notice that nobody has it after a request that was broken off.
        let host_ports = if self.options.name.is_some() { cluster.host_ports().await? } else { None };
        let mut lacking: Vec<(Need, String)> = unset.map(|reason| (Need::LinkLatency, reason)).into_iter().collect();
        if takers.len() < 2 {
            lacking.push((Need::SeveralNodes, ONE_NODE.to_owned()));
        }
        *self.lacking.lock().unwrap_or_else(PoisonError::into_inner) = Some(lacking);
        Ok(Shared { kubeconfig: cluster.kubeconfig(), host_ports, own, used: self.options.reuse.is_some() })
    }
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
        let found = self.lacking.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What a cluster can do shows when it is there.
        let foreseen = || match self.options.reuse {
            None if self.nodes() < 3 => {
                [Need::LinkLatency, Need::SeveralNodes].map(|need| (need, ONE_NODE.to_owned())).into_iter().collect()
            }
            _ => Vec::new(),
        };
        let lacking = found.unwrap_or_else(foreseen);
        ClusterSetting { quiet: QUIET, lacking, at_once: Some(1) }
    }

    async fn prepare(&self, builds: &[GatewayBuild], tell: &(dyn Fn(String) + Send + Sync)) -> Result<(), ProviderError> {
        let shared = self.bring_up(builds, tell).await?;
        *self.shared.lock().await = Some(shared);
        Ok(())
    }

    /// The cluster that was prepared, emptied of what the last run left. Everything about it is as it was prepared, whatever the
    /// request says of nodes and images.
    async fn create(&self, _request: &ClusterRequest) -> Result<Box<dyn ClusterHandle>, ProviderError> {
        let mut turn = Arc::clone(&self.shared).lock_owned().await;
        let shared = turn.as_mut().ok_or(KindError::NotPrepared)?;
        if shared.used {
            let kubernetes = Kubernetes::connect(&shared.kubeconfig, None).await.map_err(KindError::from)?;
            ready::empty(&kubernetes, &shared.own).await?;
            // A gateway cannot take over the IngressClass of another: its controller is immutable.
            clearing::remove_marked(&kubernetes, MARK).await.map_err(KindError::from)?;
            links::reset(&kubernetes).await?;
        }
        shared.used = true;
        Ok(Box::new(Handle { kubeconfig: shared.kubeconfig.clone(), host_ports: shared.host_ports.clone(), _turn: turn }))
    }

    async fn end(&self) -> Result<Option<String>, ProviderError> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).take();
        let prepared = self.shared.lock().await.take().is_some();
        match made {
            Some(cluster) if self.options.retain && prepared => Ok(Some(format!(
                "cluster {} stays: kubectl --kubeconfig {} get pods -A; `--reuse {}` runs in it, `gatelab down --all` takes it away",
                cluster.name,
                cluster.kubeconfig().display(),
                cluster.name
            ))),
            Some(cluster) => {
                cluster.delete().await?;
                Ok(None)
            }
            None => Ok(None),
        }
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
        self.host_ports.as_ref()
    }

    /// The next run, or the end of the invocation, takes away what is in the cluster.
    async fn delete(self: Box<Self>) -> Result<(), ProviderError> {
        Ok(())
    }
}
