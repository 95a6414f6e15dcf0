//! Finding a gateway's binary: given by the user, on PATH, in the user's cache, or fetched into that cache.

mod cache;
mod command;
pub(crate) mod debian;
mod error;
#[cfg(test)]
mod tests;
mod tools;
pub(crate) mod version;
pub(crate) mod wheel;

use std::path::{Path, PathBuf};

pub(crate) use command::locate;
pub use error::FetchError;
pub use tools::{find_tools, install_tools};

use crate::GatewayKind;

/// Where a gateway's binary came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The user named it.
    Given,
    /// Found on PATH (or in the usual sbin folders).
    Path,
    /// Fetched into the cache, now or earlier.
    Cache,
}

/// A gateway that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayBuild {
    pub kind: GatewayKind,
    /// As the binary itself says, e.g. `1.22.1`.
    pub version: String,
    /// Absolute path on the host.
    pub binary: PathBuf,
    /// Root of the unpacked tree for [`Origin::Cache`].
    pub root: Option<PathBuf>,
    /// Folders with shared libraries that the host lacks (inside `root`).
    pub library_path: Vec<PathBuf>,
    pub origin: Origin,
}

/// Folder in containers where the unpacked gateway is seen.
pub const CONTAINER_ROOT: &str = "/opt/gateway";

impl GatewayBuild {
    /// Name of the image that holds it: `gatelab/nginx:1.22.1`.
    pub fn image(&self) -> String {
        format!("gatelab/{}:{}", self.kind, self.version)
    }

    /// Read-only mounts (host path, container path) that make the gateway visible in a container. Empty when the binary lies under
    /// `/usr`, which every container of the embedded cluster has from the host.
    pub fn image_mounts(&self) -> Vec<(PathBuf, PathBuf)> {
        match &self.root {
            Some(root) => vec![(root.clone(), PathBuf::from(CONTAINER_ROOT))],
            None if self.binary.starts_with("/usr") => Vec::new(),
            None => self.binary.parent().map(|folder| (folder.to_owned(), PathBuf::from(CONTAINER_ROOT))).into_iter().collect(),
        }
    }

    /// Arguments for `gatelab gateway-agent` that name the binary as the container sees it, and the version that it has told already
    /// (asking costs Envoy and Traefik as much as a start): `--binary /opt/gateway/usr/sbin/nginx --gateway-version 1.22.1 --library-path …`.
    pub fn agent_arguments(&self) -> Vec<String> {
        let inside = |path: &Path| match (&self.root, path.parent()) {
            (Some(root), _) => Path::new(CONTAINER_ROOT).join(path.strip_prefix(root).unwrap_or(path)),
            (None, _) if path.starts_with("/usr") => path.to_owned(),
            (None, folder) => Path::new(CONTAINER_ROOT).join(folder.and_then(|folder| path.strip_prefix(folder).ok()).unwrap_or(path)),
        };
        let mut arguments =
            vec!["--binary".to_owned(), inside(&self.binary).display().to_string(), "--gateway-version".to_owned(), self.version.clone()];
        for folder in &self.library_path {
            arguments.extend(["--library-path".to_owned(), inside(folder).display().to_string()]);
        }
        arguments
    }
}

/// How far a fetch has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A step began, e.g. `reading the package index`. Steps are counted from 1.
    Step { step: u32, of: u32, what: String },
    /// Bytes that have arrived within the current step, and how many are awaited where that is known.
    Bytes { done: u64, total: Option<u64> },
}

/// Where to look. [`Search::from_environment`] is the usual way to make one.
#[derive(Debug, Clone)]
pub struct Search {
    /// A binary that the user named; nothing else is looked at then.
    pub given: Option<PathBuf>,
    /// Whether PATH is looked at.
    pub path: bool,
    /// The version that is wanted, or the beginning of it (`1.37`); `None`: whatever is found, or else the one that the lab is made for.
    pub version: Option<String>,
    /// The lab's cache folder.
    pub cache: PathBuf,
}

impl Search {
    /// `$GATELAB_CACHE`, else `$XDG_CACHE_HOME/gatelab`, else `~/.cache/gatelab`.
    ///
    /// # Errors
    /// [`FetchError::NoCacheFolder`] when none of these variables is set.
    pub fn from_environment() -> Result<Self, FetchError> {
        Ok(Self { given: None, path: true, version: None, cache: cache_folder()? })
    }
}

/// One gateway that is to be put into the cache: what [`debian`] and [`wheel`] need to do it.
pub(crate) struct Fetch<'a> {
    pub(crate) kind: GatewayKind,
    /// The version that is wanted, or the beginning of it; `None`: the one that the lab is made for.
    wanted: Option<&'a str>,
    locked: &'a cache::Locked,
    staging: &'a cache::Staging,
    progress: &'a dyn Fn(Progress),
}

impl Fetch<'_> {
    /// For a gateway without a binary to fetch.
    pub(crate) fn only_an_image(&self) -> FetchError {
        FetchError::OnlyAnImage { kind: self.kind, image: self.kind.image().unwrap_or_default() }
    }
}

fn cache_folder() -> Result<PathBuf, FetchError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("GATELAB_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("gatelab")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/gatelab")))
        .ok_or(FetchError::NoCacheFolder)
}

/// Finds a gateway without fetching anything; `None` when there is none yet.
///
/// # Errors
/// A binary that was named or found but cannot be run or is too old.
pub fn find(kind: GatewayKind, search: &Search) -> Result<Option<GatewayBuild>, FetchError> {
    if let Some(given) = &search.given {
        let binary = std::path::absolute(given).map_err(FetchError::file("find", given))?;
        return Ok(Some(on_host(kind, binary, Origin::Given)?));
    }
    // What is on PATH counts only when it is good: the cache may have a better one, and otherwise one can be fetched.
    if search.path
        && let Some(binary) = command::locate(kind.adapter().facts().program)
        && let Ok(build) = on_host(kind, binary, Origin::Path)
        && search.version.as_ref().is_none_or(|wanted| version::fits(&build.version, wanted))
    {
        return Ok(Some(build));
    }
    Ok(cache::newest(&search.cache, kind, search.version.as_deref()))
}

/// Finds a gateway, or fetches it into the cache. Blocks (run it on a blocking thread). Safe to call from several processes at once:
/// the first fetches, the others wait for it.
///
/// # Errors
/// Everything that can keep a gateway from being fetched, each with what to do.
pub fn install(kind: GatewayKind, search: &Search, progress: &(dyn Fn(Progress) + Sync)) -> Result<GatewayBuild, FetchError> {
    if let Some(build) = find(kind, search)? {
        return Ok(build);
    }
    let locked = cache::Locked::acquire(&search.cache, kind.name())?;
    // Another process may have fetched it while this one waited for the lock.
    let wanted = search.version.as_deref();
    if let Some(build) = cache::newest(&search.cache, kind, wanted) {
        return Ok(build);
    }
    let staging = locked.stage()?;
    kind.adapter().fetch(&Fetch { kind, wanted, locked: &locked, staging: &staging, progress })
}

fn on_host(kind: GatewayKind, binary: PathBuf, origin: Origin) -> Result<GatewayBuild, FetchError> {
    let version = version::ask(kind, &binary, &[])?;
    Ok(GatewayBuild { kind, version, binary, root: None, library_path: Vec::new(), origin })
}
