//! The provider: one run at a time, in namespaces of the lab's own.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as PlainMutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gateways::GatewayBuild;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::chosen::{Chosen, ContextError};
use super::tenancy;
use crate::kubernetes::Kubernetes;
use crate::provider::interface::{ClusterHandle, ClusterRequest, ClusterSetting, Provider, ProviderError};
use crate::provider::named_image::{FoundImage, Looked, MissingImage, NamedImage, find_all};
use crate::provider::{clearing, kind};
use crate::scenario::model::Need;

/// As kube-proxy's, which such a cluster most likely has.
const QUIET: Duration = Duration::from_millis(1500);

/// Bound of the time until the cluster has the images that the user names: a registry may be slow.
const IMAGES_WITHIN: Duration = Duration::from_secs(300);

/// What a user may choose.
#[derive(Clone, Debug)]
pub struct ContextOptions {
    pub chosen: Chosen,
    /// The lab's cache folder.
    pub cache: PathBuf,
    /// As [`ClusterHandle::mark`].
    pub mark: String,
    /// Namespaces of the applications.
    pub namespaces: BTreeSet<String>,
    /// In place of packed gateways.
    pub images: Vec<NamedImage>,
}

/// A cluster that a context leads to.
pub struct Context {
    options: ContextOptions,
    shared: Arc<Mutex<Option<Shared>>>,
    /// Something of ours may be in the cluster.
    begun: PlainMutex<bool>,
    /// Nodes that take pods, once they are known.
    takers: PlainMutex<Option<u32>>,
    looked: PlainMutex<Looked>,
}

struct Shared {
    kubeconfig: PathBuf,
    used: bool,
    _lock: File,
}

struct Handle {
    kubeconfig: PathBuf,
    mark: String,
    _turn: OwnedMutexGuard<Option<Shared>>,
}

impl Context {
    pub fn new(options: ContextOptions) -> Self {
        Context {
            options,
            shared: Arc::new(Mutex::new(None)),
            begun: PlainMutex::new(false),
            takers: PlainMutex::new(None),
            looked: PlainMutex::default(),
        }
    }

    async fn enter(&self, builds: &[GatewayBuild], tell: &(dyn Fn(String) + Send + Sync)) -> Result<Shared, ContextError> {
        let ContextOptions { chosen, cache, mark, namespaces, images } = &self.options;
        let lock = tenancy::lock(cache, chosen)?;
        let kubeconfig = tenancy::folder(cache, mark).join("kubeconfig");
        chosen.write(&kubeconfig)?;
        tell(format!("context {}: reaching the cluster", chosen.name));
        let kubernetes = Kubernetes::connect(&kubeconfig, None).await?;
        let version = kubernetes.version().await?;
        for left in tenancy::make_room(&kubernetes, namespaces).await? {
            tell(format!("context {}: took away what {left} had left", chosen.name));
        }
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = true;
        if let Some(cluster) = chosen.name.strip_prefix("kind-")
            && kind::load_into(cluster, builds, tell).await?
        {
            tell(format!("context {}: images are in its nodes", chosen.name));
        } else if !version.contains("gatelab") {
            tell(format!(
                "context {}: its nodes must have the images gatelab/lab:dev and {}",
                chosen.name,
                builds.iter().map(GatewayBuild::image).collect::<Vec<_>>().join(", ")
            ));
        }
        let kubernetes = kubernetes.marking(Some(mark.clone()));
        let looked = find_all(&kubernetes, images, IMAGES_WITHIN, &|what| tell(format!("context {}: {what}", chosen.name))).await?;
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = looked;
        let takers = kind::links::taking_pods(&kubernetes).await?.len();
        *self.takers.lock().unwrap_or_else(PoisonError::into_inner) = u32::try_from(takers).ok();
        Ok(Shared { kubeconfig, used: false, _lock: lock })
    }
}

#[async_trait]
impl Provider for Context {
    fn name(&self) -> &str {
        "context"
    }

    fn setting(&self) -> ClusterSetting {
        let alone = |need| (need, "the links and the DNS of a cluster that is not the lab's own are left alone".to_owned());
        ClusterSetting {
            quiet: QUIET,
            lacking: [Need::LinkLatency, Need::NodeCut, Need::MovableDns]
                .map(alone)
                .into_iter()
                .chain([
                    (Need::TinyMemoryLimits, kind::provider::RUNTIME_TOO_LARGE.to_owned()),
                    (Need::PolicyFromStart, kind::provider::POLICY_LATE.to_owned()),
                ])
                .collect(),
            takers: *self.takers.lock().unwrap_or_else(PoisonError::into_inner),
            at_once: Some(1),
            patience: kind::provider::PATIENCE,
            reported_within: kind::provider::REPORTED_WITHIN,
        }
    }

    async fn prepare(&self, builds: &[GatewayBuild], tell: &(dyn Fn(String) + Send + Sync)) -> Result<(), ProviderError> {
        let shared = self.enter(builds, tell).await?;
        *self.shared.lock().await = Some(shared);
        Ok(())
    }

    fn found_images(&self) -> Vec<FoundImage> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).found.clone()
    }

    fn missing_images(&self) -> Vec<MissingImage> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).missing.clone()
    }

    async fn create(&self, _request: &ClusterRequest) -> Result<Box<dyn ClusterHandle>, ProviderError> {
        let mut turn = Arc::clone(&self.shared).lock_owned().await;
        let shared = turn.as_mut().ok_or(ContextError::NotPrepared)?;
        if shared.used {
            let kubernetes = Kubernetes::connect(&shared.kubeconfig, None).await.map_err(ContextError::from)?;
            clearing::remove_marked(&kubernetes, &self.options.mark).await.map_err(ContextError::from)?;
        }
        shared.used = true;
        Ok(Box::new(Handle { kubeconfig: shared.kubeconfig.clone(), mark: self.options.mark.clone(), _turn: turn }))
    }

    async fn end(&self) -> Result<Option<String>, ProviderError> {
        // Nobody else may come in before everything is gone.
        let _shared = self.shared.lock().await.take();
        if std::mem::take(&mut *self.begun.lock().unwrap_or_else(PoisonError::into_inner)) {
            tenancy::leave(&self.options.cache, &self.options.mark).await?;
        } else {
            let _ = std::fs::remove_dir_all(tenancy::folder(&self.options.cache, &self.options.mark));
        }
        Ok(None)
    }
}

#[async_trait]
impl ClusterHandle for Handle {
    fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn mark(&self) -> Option<&str> {
        Some(&self.mark)
    }

    fn is_shared(&self) -> bool {
        true
    }

    /// The next run, or the end of the invocation, takes away what is in the cluster.
    async fn delete(self: Box<Self>) -> Result<(), ProviderError> {
        Ok(())
    }
}
