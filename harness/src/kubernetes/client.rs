//! A connection to one cluster.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::discovery::{Scope, oneshot};
use kube::{Api, Client, Config};

/// Label of what a lab has put into a cluster that is not its own.
pub const MARK: &str = "gatelab.dev/lab";
/// Bound of one request that is no watch, log or exec: a cluster that takes longer is as good as gone.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    #[error("cannot use the kubeconfig {}: {detail}", .path.display())]
    Kubeconfig { path: PathBuf, detail: String },
    #[error("{action}: {}", describe(.source))]
    Request { action: String, source: Box<kube::Error> },
    #[error("{object}: the cluster serves no kind {kind} in {api_version}; a manifest of this kind cannot be applied to it")]
    KindNotServed { object: String, kind: String, api_version: String },
    #[error("not a Kubernetes manifest: {detail}")]
    Manifest { detail: String },
    #[error("running `{command}` in {pod}: {detail}")]
    Exec { command: String, pod: String, detail: String },
    #[error("{what} was not reached within {waited:?}: {last}")]
    NotReached { what: String, waited: Duration, last: String },
}

impl KubernetesError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, KubernetesError::Request { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 404))
    }
}

/// The API server's own message says more than kube's rendering of the whole status.
fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => format!("{} ({})", status.message, status.code),
        other => {
            let mut text = other.to_string();
            let mut next = std::error::Error::source(other);
            while let Some(cause) = next {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text.push_str(": ");
                    text.push_str(&cause_text);
                }
                next = cause.source();
            }
            text
        }
    }
}

/// What is known of a kind: how its objects are addressed.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub resource: ApiResource,
    pub namespaced: bool,
}

/// A cluster, reached. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    kinds: Arc<Mutex<HashMap<(String, String), Kind>>>,
    mark: Option<String>,
}

impl Kubernetes {
    /// Connects with a kubeconfig file; `context`: `None` for its current one.
    pub async fn connect(kubeconfig: &Path, context: Option<&str>) -> Result<Self, KubernetesError> {
        let unusable = |detail: String| KubernetesError::Kubeconfig { path: kubeconfig.to_owned(), detail };
        let file = Kubeconfig::read_from(kubeconfig).map_err(|error| unusable(error.to_string()))?;
        let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let mut config = Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unusable(error.to_string()))?;
        config.connect_timeout = Some(Duration::from_secs(5));
        // Watches, logs and execs stay open for as long as they are needed; plain requests are bounded in `bounded`.
        config.read_timeout = None;
        config.write_timeout = None;
        let client = Client::try_from(config).map_err(|error| unusable(error.to_string()))?;
        Ok(Kubernetes { client, kinds: Arc::default(), mark: None })
    }

    /// Gives every namespace and every object without one that is applied from now on the label [`MARK`] with this value.
    #[must_use]
    pub fn marking(mut self, mark: Option<String>) -> Self {
        self.mark = mark;
        self
    }

    pub(super) fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Bounds a request and says what was tried when it fails.
    pub async fn bounded<T>(
        &self,
        action: impl Into<String>,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, KubernetesError> {
        let action = action.into();
        match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(KubernetesError::Request { action, source: Box::new(source) }),
            Err(_) => {
                Err(KubernetesError::NotReached { what: action, waited: REQUEST_TIMEOUT, last: "the API server did not answer".into() })
            }
        }
    }

    /// Git version of the API server.
    pub async fn version(&self) -> Result<String, KubernetesError> {
        Ok(self.bounded("asking for the version of the API server", self.client.apiserver_version()).await?.git_version)
    }

    /// How objects of a kind are addressed; asks the cluster once for each kind.
    pub(super) async fn kind(&self, object: &str, api_version: &str, kind: &str) -> Result<Kind, KubernetesError> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(found) = self.kinds.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&key) {
            return Ok(found.clone());
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let not_served = || KubernetesError::KindNotServed { object: object.into(), kind: kind.into(), api_version: api_version.into() };
        let asked = tokio::time::timeout(REQUEST_TIMEOUT, oneshot::pinned_kind(&self.client, &gvk)).await;
        let (resource, capabilities) = match asked {
            Ok(Ok(found)) => found,
            Ok(Err(kube::Error::Discovery(_))) => return Err(not_served()),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Err(not_served()),
            Ok(Err(source)) => {
                return Err(KubernetesError::Request { action: format!("discovering {kind} in {api_version}"), source: Box::new(source) });
            }
            Err(_) => {
                return Err(KubernetesError::NotReached {
                    what: format!("discovery of {kind} in {api_version}"),
                    waited: REQUEST_TIMEOUT,
                    last: "the API server did not answer".into(),
                });
            }
        };
        let kind = Kind { resource, namespaced: capabilities.scope == Scope::Namespaced };
        self.kinds.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, kind.clone());
        Ok(kind)
    }

    pub(super) fn api(&self, kind: &Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) if kind.namespaced => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            _ => Api::all_with(self.client.clone(), &kind.resource),
        }
    }
}
