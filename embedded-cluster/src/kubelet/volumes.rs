//! A pod's volumes as folders of this machine, bound into its containers.
//!
//! Contents of ConfigMaps, Secrets and the like are written as the kubelet's AtomicWriter does: into a fresh folder that
//! the symlink `..data` is then switched to, so that a reader sees either all of the old or all of the new. Changes
//! arrive at once; a real kubelet looks only about once a minute.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, KeyToPath, Pod, Volume, VolumeProjection};

use super::environment::{ConfigError, field, resource};
use super::node::Kubelet;
use crate::runtime::Mount;

/// In every namespace, a moment after the namespace.
const ROOT_CA: &str = "kube-root-ca.crt";

/// Why a volume cannot be mounted: event `FailedMount`, and the pod waits.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {detail}")]
pub(super) struct VolumeError {
    volume: String,
    detail: String,
}

/// Content and mode by path.
type Payload = BTreeMap<String, (Vec<u8>, u32)>;

/// The volumes of one pod.
pub(super) struct Volumes {
    folder: PathBuf,
    written: BTreeMap<String, Payload>,
    generation: u64,
    sources: BTreeMap<String, PathBuf>,
}

impl Volumes {
    pub(super) fn new(pod_folder: &Path) -> Self {
        Self { folder: pod_folder.join("volumes"), written: BTreeMap::new(), generation: 0, sources: BTreeMap::new() }
    }

    /// Makes or refreshes all volumes of the pod.
    pub(super) fn set_up(&mut self, kubelet: &Kubelet, pod: &Pod, pod_ip: &str) -> Result<(), VolumeError> {
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.clone()).unwrap_or_default();
        for volume in &volumes {
            let failed = |detail: String| VolumeError { volume: volume.name.clone(), detail };
            if let Some(host_path) = &volume.host_path {
                let path = node_path(kubelet, host_path).map_err(failed)?;
                self.sources.insert(volume.name.clone(), path);
            } else if volume.empty_dir.is_some() {
                let path = self.folder.join("kubernetes.io~empty-dir").join(&volume.name);
                std::fs::create_dir_all(&path).map_err(|e| failed(e.to_string()))?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).map_err(|e| failed(e.to_string()))?;
                self.sources.insert(volume.name.clone(), path);
            } else {
                let payload = payload(kubelet, pod, volume, pod_ip).map_err(|e| failed(e.0))?;
                self.write(&volume.name, payload).map_err(|e| failed(e.to_string()))?;
            }
        }
        Ok(())
    }

    /// Where the container sees which volume.
    pub(super) fn mounts(&self, container: &Container, environment: &[(String, String)]) -> Result<Vec<Mount>, ConfigError> {
        let variables: BTreeMap<String, String> = environment.iter().cloned().collect();
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let Some(source) = self.sources.get(&mount.name) else {
                return Err(ConfigError(format!("no volume is named \"{}\"", mount.name)));
            };
            let sub_path =
                mount.sub_path_expr.as_ref().map(|e| super::environment::expand(e, &variables)).or_else(|| mount.sub_path.clone());
            let source = match sub_path.filter(|path| !path.is_empty()) {
                Some(path) => sub_path_of(source, &path)?,
                None => source.clone(),
            };
            // What comes from the API is read-only however it is mounted (since Kubernetes 1.9).
            let from_api = self.written.contains_key(&mount.name);
            mounts.push(Mount { source, target: PathBuf::from(&mount.mount_path), read_only: from_api || mount.read_only == Some(true) });
        }
        Ok(mounts)
    }

    fn write(&mut self, volume: &str, payload: Payload) -> io::Result<()> {
        let folder = self.folder.join("kubernetes.io~projected").join(volume);
        self.sources.insert(volume.to_owned(), folder.clone());
        if self.written.get(volume) == Some(&payload) {
            return Ok(());
        }
        self.generation += 1;
        let fresh_name = format!("..{}.{}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), self.generation);
        let fresh = folder.join(&fresh_name);
        std::fs::create_dir_all(&fresh)?;
        for (path, (content, mode)) in &payload {
            let file = fresh.join(path);
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&file, content)?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(*mode))?;
        }
        let data = folder.join("..data");
        let stale = std::fs::read_link(&data).ok();
        let switch = folder.join("..data_tmp");
        let _ = std::fs::remove_file(&switch);
        symlink(&fresh_name, &switch)?;
        std::fs::rename(&switch, &data)?;
        let visible = |payload: &Payload| -> Vec<String> {
            let mut tops: Vec<String> = payload.keys().map(|path| path.split('/').next().unwrap_or(path).to_owned()).collect();
            tops.dedup();
            tops
        };
        for top in visible(&payload) {
            let link = folder.join(&top);
            if std::fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(&top), &link)?;
            }
        }
        if let Some(before) = self.written.get(volume) {
            let now = visible(&payload);
            for gone in visible(before).iter().filter(|top| !now.contains(top)) {
                let _ = std::fs::remove_file(folder.join(gone));
            }
        }
        if let Some(stale) = stale {
            let _ = std::fs::remove_dir_all(folder.join(stale));
        }
        self.written.insert(volume.to_owned(), payload);
        Ok(())
    }
}

fn sub_path_of(source: &Path, path: &str) -> Result<PathBuf, ConfigError> {
    let relative = Path::new(path);
    if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(ConfigError(format!("subPath {path:?} must be a relative path without '..'")));
    }
    let whole = source.join(relative);
    if !whole.exists() {
        std::fs::create_dir_all(&whole).map_err(|e| ConfigError(format!("failed to prepare subPath {path:?}: {e}")))?;
    }
    // Resolved now, so that a bound file of a ConfigMap does not change later: as in Kubernetes.
    whole.canonicalize().map_err(|e| ConfigError(format!("failed to prepare subPath {path:?}: {e}")))
}

/// Nodes of this lab have a file system of their own, empty at first: pods of one node share it, and see nothing of the
/// machine that the lab runs on.
fn node_path(kubelet: &Kubelet, wanted: &HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = &wanted.path;
    let failed = |e: io::Error| format!("hostPath {path:?}: {e}");
    let root = kubelet.settings.state_dir.join("nodes").join(&kubelet.node.name);
    for folder in ["etc", "tmp", "var/lib", "var/log"] {
        std::fs::create_dir_all(root.join(folder)).map_err(failed)?;
    }
    let root = root.canonicalize().map_err(failed)?;
    let whole = root.join(Path::new(path).components().filter(|c| matches!(c, Component::Normal(_))).collect::<PathBuf>());
    let kind = wanted.type_.as_deref().unwrap_or_default();
    match kind {
        "" | "DirectoryOrCreate" if !whole.exists() => std::fs::create_dir_all(&whole).map_err(failed)?,
        "FileOrCreate" if !whole.exists() => std::fs::write(&whole, []).map_err(failed)?,
        _ => {}
    }
    let is_right = match kind {
        "" => true,
        "Directory" | "DirectoryOrCreate" => whole.is_dir(),
        "File" | "FileOrCreate" => whole.is_file(),
        _ => false,
    };
    if !is_right {
        return Err(format!("hostPath type check failed: {path} is not a {}", kind.trim_end_matches("OrCreate").to_lowercase()));
    }
    // A pod may have left a link that leads out.
    let whole = whole.canonicalize().map_err(failed)?;
    if whole.starts_with(&root) { Ok(whole) } else { Err(format!("hostPath {path:?} leads out of the node's file system")) }
}

fn payload(kubelet: &Kubelet, pod: &Pod, volume: &Volume, pod_ip: &str) -> Result<Payload, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(source) = &volume.config_map {
        let mode = mode(source.default_mode, 0o644);
        return config_map(kubelet, namespace, &source.name, source.items.as_deref(), source.optional == Some(true), mode);
    }
    if let Some(source) = &volume.secret {
        let (name, mode) = (source.secret_name.as_deref().unwrap_or_default(), mode(source.default_mode, 0o644));
        return secret(kubelet, namespace, name, source.items.as_deref(), source.optional == Some(true), mode);
    }
    if let Some(source) = &volume.downward_api {
        return downward(kubelet, pod, source.items.as_deref().unwrap_or_default(), mode(source.default_mode, 0o644), pod_ip);
    }
    if let Some(source) = &volume.projected {
        let mode = mode(source.default_mode, 0o644);
        let mut payload = Payload::new();
        for projection in source.sources.iter().flatten() {
            payload.extend(projected(kubelet, pod, projection, mode, pod_ip)?);
        }
        return Ok(payload);
    }
    Err(ConfigError("this lab has ConfigMap, Secret, projected, downwardAPI and emptyDir volumes only".to_owned()))
}

fn mode(given: Option<i32>, default: u32) -> u32 {
    given.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default)
}

fn projected(kubelet: &Kubelet, pod: &Pod, projection: &VolumeProjection, mode: u32, pod_ip: &str) -> Result<Payload, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(source) = &projection.config_map {
        return config_map(kubelet, namespace, &source.name, source.items.as_deref(), source.optional == Some(true), mode);
    }
    if let Some(source) = &projection.secret {
        return secret(kubelet, namespace, &source.name, source.items.as_deref(), source.optional == Some(true), mode);
    }
    if let Some(source) = &projection.downward_api {
        return downward(kubelet, pod, source.items.as_deref().unwrap_or_default(), mode, pod_ip);
    }
    if let Some(source) = &projection.service_account_token {
        let token = (kubelet.settings.token_issuer)(namespace, &service_account(pod));
        return Ok([(source.path.clone(), (token.into_bytes(), mode))].into());
    }
    Ok(Payload::new())
}

fn config_map(
    kubelet: &Kubelet,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: u32,
) -> Result<Payload, ConfigError> {
    let Some(map) = kubelet.config_maps.get(namespace, name) else {
        // A kubelet would try again until it is there; a lab has no second to spare.
        if name == ROOT_CA {
            let certificate = kubelet.settings.ca_certificate.clone().into_bytes();
            return chosen([("ca.crt".to_owned(), certificate)].into(), items, optional, mode);
        }
        return if optional { Ok(Payload::new()) } else { Err(ConfigError(format!("configmap \"{name}\" not found"))) };
    };
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, ByteString(v))| (k.clone(), v.clone()));
    chosen(text.chain(binary).collect(), items, optional, mode)
}

fn secret(
    kubelet: &Kubelet,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: u32,
) -> Result<Payload, ConfigError> {
    let Some(secret) = kubelet.secrets.get(namespace, name) else {
        return if optional { Ok(Payload::new()) } else { Err(ConfigError(format!("secret \"{name}\" not found"))) };
    };
    let data = secret.data.iter().flatten().map(|(k, ByteString(v))| (k.clone(), v.clone()));
    chosen(data.collect(), items, optional, mode)
}

/// Everything by its key, or only `items` at their paths.
fn chosen(data: BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>, optional: bool, mode: u32) -> Result<Payload, ConfigError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, content)| (key, (content, mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(content) => {
                payload.insert(inside(&item.path)?, (content.clone(), self::mode(item.mode, mode)));
            }
            None if optional => {}
            None => return Err(ConfigError(format!("references non-existent config key: {}", item.key))),
        }
    }
    Ok(payload)
}

/// Paths of items must stay in the volume.
fn inside(path: &str) -> Result<String, ConfigError> {
    let fine = !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if fine { Ok(path.to_owned()) } else { Err(ConfigError(format!("path {path:?} must be relative and without '..'"))) }
}

fn downward(
    kubelet: &Kubelet,
    pod: &Pod,
    items: &[k8s_openapi::api::core::v1::DownwardAPIVolumeFile],
    mode: u32,
    pod_ip: &str,
) -> Result<Payload, ConfigError> {
    let mut payload = Payload::new();
    let first = pod.spec.as_ref().and_then(|s| s.containers.first().cloned()).unwrap_or_default();
    for item in items {
        let content = match (&item.field_ref, &item.resource_field_ref) {
            (Some(reference), _) => field(kubelet, pod, reference, pod_ip)?,
            (None, Some(reference)) => resource(pod, &first, reference)?,
            (None, None) => String::new(),
        };
        payload.insert(inside(&item.path)?, (content.into_bytes(), self::mode(item.mode, mode)));
    }
    Ok(payload)
}

fn service_account(pod: &Pod) -> String {
    let named = pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).filter(|name| !name.is_empty());
    named.unwrap_or_else(|| "default".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes() -> (tempfile::TempDir, Volumes) {
        let folder = tempfile::tempdir().expect("a folder");
        let volumes = Volumes::new(folder.path());
        (folder, volumes)
    }

    fn payload_of(entries: &[(&str, &str)]) -> Payload {
        entries.iter().map(|(k, v)| ((*k).to_owned(), (v.as_bytes().to_vec(), 0o600))).collect()
    }

    #[test]
    fn content_changes_by_switching_one_link() {
        let (_folder, mut volumes) = volumes();
        volumes.write("config", payload_of(&[("a", "1"), ("b/c", "2")])).expect("written");
        let root = volumes.sources["config"].clone();
        let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
        assert_eq!((read("a").as_deref(), read("b/c").as_deref()), (Some("1"), Some("2")));
        let before = std::fs::read_link(root.join("..data")).expect("a link");
        let mode = std::fs::metadata(root.join("a")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        volumes.write("config", payload_of(&[("a", "changed")])).expect("written");
        assert_eq!((read("a").as_deref(), read("b/c")), (Some("changed"), None));
        assert_ne!(std::fs::read_link(root.join("..data")).expect("a link"), before);
        assert!(!root.join(&before).exists(), "the old folder is gone");
        let unchanged = std::fs::read_link(root.join("..data")).expect("a link");
        volumes.write("config", payload_of(&[("a", "changed")])).expect("written");
        assert_eq!(std::fs::read_link(root.join("..data")).expect("a link"), unchanged);
    }

    #[test]
    fn items_choose_keys_and_stay_inside() {
        let data: BTreeMap<String, Vec<u8>> = [("key".to_owned(), b"v".to_vec())].into();
        let item = |key: &str, path: &str| KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: Some(0o400) };
        let of =
            |item: KeyToPath, optional| chosen(data.clone(), Some(&[item]), optional, 0o644).map(|p| p.into_iter().collect::<Vec<_>>());
        assert_eq!(of(item("key", "sub/file"), false), Ok(vec![("sub/file".to_owned(), (b"v".to_vec(), 0o400))]));
        assert!(of(item("other", "x"), false).is_err());
        assert_eq!(of(item("other", "x"), true), Ok(vec![]));
        assert!(of(item("key", "../out"), false).is_err());
        assert!(of(item("key", "/etc/out"), false).is_err());
    }

    #[test]
    fn a_sub_path_is_the_file_itself_and_never_outside() {
        let (_folder, mut volumes) = volumes();
        volumes.write("config", payload_of(&[("a", "1")])).expect("written");
        let root = &volumes.sources["config"];
        let file = sub_path_of(root, "a").expect("a file");
        assert!(file.is_file() && !file.ends_with("a/..data"));
        assert!(sub_path_of(root, "../../x").is_err());
    }
}
