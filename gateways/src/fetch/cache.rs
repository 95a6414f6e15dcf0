//! The user's cache: `<cache>/<gateway>/<package version>/` with a record beside the unpacked tree. Trees appear in it by rename only,
//! so an interrupted fetch leaves nothing that could be taken for a gateway.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{FetchError, GatewayBuild, Origin, version};
use crate::GatewayKind;

const RECORD: &str = "gateway.json";
const TREE: &str = "root";

/// What is written beside an unpacked tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub kind: GatewayKind,
    /// Version of the package that it came from.
    pub package: String,
    /// Relative to the tree.
    pub binary: PathBuf,
    /// Relative to the tree.
    pub library_path: Vec<PathBuf>,
    /// Fetched because somebody asked for this version: not for those who ask for none.
    #[serde(default)]
    pub asked_for: bool,
}

/// Exclusive use of one part of the cache, a gateway's or that of the tools, across processes; the kernel gives it back when the process ends.
#[derive(Debug)]
pub(super) struct Locked {
    _lock: Flock<fs::File>,
    folder: PathBuf,
}

/// A folder in which a fetch is put together; removed unless it is kept.
#[derive(Debug)]
pub(super) struct Staging {
    folder: tempfile::TempDir,
}

impl Locked {
    /// Waits for the lock.
    pub fn acquire(cache: &Path, name: &str) -> Result<Self, FetchError> {
        let folder = cache.join(name);
        fs::create_dir_all(&folder).map_err(FetchError::file("create", &folder))?;
        let path = cache.join(format!("{name}.lock"));
        let file = fs::File::options().create(true).truncate(false).write(true).open(&path).map_err(FetchError::file("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| FetchError::file("lock", &path)(errno.into()))?;
        Ok(Self { _lock: lock, folder })
    }

    /// A fresh staging folder beside the final place (a rename must not cross file systems). What killed fetches left is removed.
    pub fn stage(&self) -> Result<Staging, FetchError> {
        for entry in fs::read_dir(&self.folder).map_err(FetchError::file("read", &self.folder))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(".staging") {
                fs::remove_dir_all(entry.path()).map_err(FetchError::file("remove", &entry.path()))?;
            }
        }
        let folder =
            tempfile::Builder::new().prefix(".staging").tempdir_in(&self.folder).map_err(FetchError::file("create", &self.folder))?;
        let staging = Staging { folder };
        fs::create_dir_all(staging.tree()).map_err(FetchError::file("create", &staging.tree()))?;
        Ok(staging)
    }

    /// Puts a finished tree into its place.
    pub fn keep(&self, staging: &Staging, record: &Record) -> Result<GatewayBuild, FetchError> {
        let kept = staging.path().join("kept");
        fs::create_dir(&kept).map_err(FetchError::file("create", &kept))?;
        fs::rename(staging.tree(), kept.join(TREE)).map_err(FetchError::file("rename", &staging.tree()))?;
        let path = kept.join(RECORD);
        let text = serde_json::to_vec_pretty(record).map_err(|error| FetchError::file("write", &path)(error.into()))?;
        fs::write(&path, text).map_err(FetchError::file("write", &path))?;
        let place = self.folder.join(&record.package);
        if place.exists() {
            fs::remove_dir_all(&place).map_err(FetchError::file("remove", &place))?;
        }
        fs::rename(&kept, &place).map_err(FetchError::file("rename", &kept))?;
        load(&place, record.kind)
    }
}

impl Staging {
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the gateway's files are unpacked.
    pub fn tree(&self) -> PathBuf {
        self.path().join(TREE)
    }
}

/// The newest usable gateway of a kind in the cache, of a version where one is wanted. A tree that does not run here any more (another distribution, a removed library) is
/// passed over, to be fetched again.
pub(super) fn newest(cache: &Path, kind: GatewayKind, wanted: Option<&str>) -> Option<GatewayBuild> {
    let mut places: Vec<(std::time::SystemTime, PathBuf)> = fs::read_dir(cache.join(kind.name()))
        .ok()?
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    places.sort();
    places.iter().rev().find_map(|(_, place)| {
        let record = record(place).ok()?;
        match wanted {
            None if record.asked_for => return None,
            Some(wanted) if !version::fits(&record.package, wanted) => return None,
            _ => {}
        }
        load(place, kind).ok()
    })
}

fn record(place: &Path) -> Result<Record, FetchError> {
    let path = place.join(RECORD);
    let text = fs::read(&path).map_err(FetchError::file("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| FetchError::file("read", &path)(error.into()))
}

fn load(place: &Path, kind: GatewayKind) -> Result<GatewayBuild, FetchError> {
    let record = record(place)?;
    let root = place.join(TREE);
    let binary = root.join(&record.binary);
    let library_path: Vec<PathBuf> = record.library_path.iter().map(|folder| root.join(folder)).collect();
    let version = version::ask(kind, &binary, &library_path)?;
    Ok(GatewayBuild { kind, version, binary, root: Some(root), library_path, origin: Origin::Cache })
}
