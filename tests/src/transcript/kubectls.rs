//! Every kubectl of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone, Debug)]
pub struct Kubectl {
    pub path: PathBuf,
    /// Of 1.`minor`.
    pub minor: u32,
}

/// One for each minor version, the oldest first: those that `GATELAB_KUBECTL` names (as PATH names folders), those on PATH, the one that was
/// built with kind's node image. Google Cloud's kubectl starts one of those beside it, by the version of the server: these count.
pub fn kubectls() -> Vec<Kubectl> {
    let variable = |name: &str| std::env::var_os(name).unwrap_or_default();
    let named: Vec<PathBuf> = std::env::split_paths(&variable("GATELAB_KUBECTL")).collect();
    let on_path = std::env::split_paths(&variable("PATH")).map(|folder| folder.join("kubectl")).collect();
    let built = PathBuf::from(variable("HOME")).join(".cache/gatelab/kind-node-image/bin/kubectl");
    let mut found: Vec<Kubectl> = Vec::new();
    for path in [named, on_path, vec![built]].concat().into_iter().filter(|path| path.is_file()) {
        let Some(version) = version(&path) else { continue };
        let beside = if version.ends_with("-dispatcher") { beside(&path) } else { Vec::new() };
        let candidates =
            if beside.is_empty() { minor(&version).map(|minor| Kubectl { path, minor }).into_iter().collect() } else { beside };
        for candidate in candidates {
            if found.iter().all(|known| known.minor != candidate.minor) {
                found.push(candidate);
            }
        }
    }
    found.sort_by_key(|kubectl| kubectl.minor);
    found
}

/// `kubectl.1.33` and the like.
fn beside(dispatcher: &Path) -> Vec<Kubectl> {
    let Some(folder) = dispatcher.canonicalize().ok().and_then(|path| Some(path.parent()?.to_owned())) else { return Vec::new() };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let of = |path: PathBuf| {
        let minor = path.file_name()?.to_str()?.strip_prefix("kubectl.1.")?.parse().ok()?;
        Some(Kubectl { path, minor })
    };
    files.filter_map(of).collect()
}

fn version(kubectl: &Path) -> Option<String> {
    let said = Command::new(kubectl).args(["version", "--client", "-o", "json"]).output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Some(said.split_once("\"gitVersion\": \"v")?.1.split('"').next()?.to_owned())
}

/// Of `1.32.4-dispatcher`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn kubectl(folder: &Path, name: &str, version: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '  \"gitVersion\": \"v{version}\",'\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        path
    }

    #[test]
    fn versions_are_told_and_a_dispatcher_counts_as_those_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(version(&kubectl(folder.path(), "other", "1.20.2")).as_deref(), Some("1.20.2"));
        assert_eq!((minor("1.20.2"), minor("1.32.4-dispatcher"), minor("2.0")), (Some(20), Some(32), None));
        let dispatcher = kubectl(folder.path(), "kubectl", "1.32.4-dispatcher");
        assert!(beside(&dispatcher).is_empty());
        let real = kubectl(folder.path(), "kubectl.1.33", "1.33.1");
        let found = beside(&dispatcher);
        assert_eq!((found.len(), found[0].minor, found[0].path.canonicalize().ok()), (1, 33, real.canonicalize().ok()));
    }
}
