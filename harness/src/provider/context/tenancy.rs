//! Being a guest: nothing that was there is touched, everything that the lab brings is found again.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use gateways::GATEWAY_NAMESPACE;

use super::chosen::{Chosen, ContextError};
use crate::kubernetes::{Kubernetes, KubernetesError, MARK, ObjectRef};
use crate::provider::clearing;
use crate::run::probing::CLIENT_NAMESPACE;

/// Marks of runs begin like this; what has such a mark and no running owner is left over.
const RUN: &str = "run-";
/// Marks of labs that `gatelab up` made.
const LAB: &str = "lab-";
/// What a gateway brings that has no namespace.
const CLUSTER_WIDE: [(&str, &str); 3] = [
    ("networking.k8s.io/v1", "IngressClass"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
];

pub fn mark_of_lab(name: &str) -> String {
    format!("{LAB}{name}")
}

pub fn new_mark() -> String {
    format!("{RUN}{}-{:04x}", std::process::id(), rand::random::<u16>())
}

/// Folder of everything that the lab keeps about one stay in a cluster.
pub fn folder(cache: &Path, mark: &str) -> PathBuf {
    cache.join("contexts").join(mark)
}

/// Held as long as this process puts things into the cluster.
///
/// # Errors
/// When another process holds it.
pub fn lock(cache: &Path, chosen: &Chosen) -> Result<File, ContextError> {
    let path = cache.join("contexts").join(format!("{}.lock", chosen.file_name()));
    let failed = |source| ContextError::File { what: "a lock for the cluster", path: path.clone(), source };
    fs::create_dir_all(cache.join("contexts")).map_err(failed)?;
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ContextError::Busy),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes sure that nothing is in the way; takes away what runs that were killed have left, and returns their marks. To be called
/// with the lock held.
///
/// # Errors
/// When something of the lab's names is there that no lab has made, or a lab that is in use.
pub async fn make_room(kubernetes: &Kubernetes, application: &BTreeSet<String>) -> Result<Vec<String>, ContextError> {
    let (left, others): (Vec<String>, Vec<String>) = clearing::marks(kubernetes).await?.into_iter().partition(|mark| mark.starts_with(RUN));
    if let Some(mark) = others.first() {
        return Err(ContextError::Occupied { mark: mark.clone() });
    }
    for mark in &left {
        clearing::remove_marked(kubernetes, mark).await?;
    }
    let namespaces = [GATEWAY_NAMESPACE, CLIENT_NAMESPACE].into_iter().chain(application.iter().map(String::as_str));
    let wanted = namespaces.map(|name| ("v1", "Namespace", name)).chain(CLUSTER_WIDE.map(|(version, kind)| (version, kind, "gateway")));
    for (api_version, kind, name) in wanted {
        let object = ObjectRef { api_version: api_version.into(), kind: kind.into(), namespace: None, name: name.into() };
        match kubernetes.get(&object).await {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
            Ok(found) if found["metadata"]["labels"][MARK].is_string() => {}
            Ok(_) => return Err(ContextError::InTheWay { what: object.to_string() }),
        }
    }
    Ok(left)
}

/// Leaves the cluster, and forgets about the stay.
///
/// # Errors
/// When the cluster does not let something go.
pub async fn leave(cache: &Path, mark: &str) -> Result<(), ContextError> {
    let folder = folder(cache, mark);
    let kubernetes = Kubernetes::connect(&folder.join("kubeconfig"), None).await?;
    clearing::remove_marked(&kubernetes, mark).await?;
    let _ = fs::remove_dir_all(folder);
    Ok(())
}

/// Takes away what runs whose process is gone have left in clusters. Returns the marks, each with what went wrong: a cluster that
/// cannot be reached any more is forgotten.
pub async fn sweep(cache: &Path) -> Vec<(String, Option<KubernetesError>)> {
    let mut swept = Vec::new();
    for entry in fs::read_dir(cache.join("contexts")).into_iter().flatten().flatten() {
        let mark = entry.file_name().to_string_lossy().into_owned();
        let process = mark.strip_prefix(RUN).and_then(|rest| rest.split('-').next()).and_then(|process| process.parse::<u32>().ok());
        if process.is_none_or(|process| Path::new(&format!("/proc/{process}")).exists()) {
            continue;
        }
        let error = match leave(cache, &mark).await {
            Err(ContextError::Kubernetes(error)) => Some(error),
            _ => None,
        };
        let _ = fs::remove_dir_all(entry.path());
        swept.push((mark, error));
    }
    swept
}
