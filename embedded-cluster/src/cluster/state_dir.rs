//! The folder a lab keeps on the host: who it is, its kubeconfig, its log. All else lives in memory.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ClusterError, Lifetime};

/// What is known of a running lab from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabRecord {
    pub name: String,
    /// Of the lab's first process, as the host sees it.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: with the pid it names one process, even after pids have been used again.
    pub start_time: u64,
    pub lifetime: Lifetime,
    /// `None` while it comes up.
    pub api_address: Option<SocketAddr>,
    pub kubeconfig: PathBuf,
    pub state_dir: PathBuf,
}

impl LabRecord {
    /// Whether the first process still runs.
    pub fn is_alive(&self) -> bool {
        process_start_time(self.pid) == Some(self.start_time)
    }
}

/// `$XDG_RUNTIME_DIR/gatelab/<name>`, or `$TMPDIR/gatelab-<uid>/<name>` where there is no such folder.
pub fn default_state_dir(name: &str) -> PathBuf {
    state_root().join(name)
}

pub(super) fn state_root() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && is_own_folder(dir)) {
        Some(runtime) => runtime.join("gatelab"),
        None => std::env::temp_dir().join(format!("gatelab-{}", nix::unistd::getuid())),
    }
}

fn is_own_folder(path: &Path) -> bool {
    // symlink_metadata: in a shared /tmp, a link somebody else made must not be followed.
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == nix::unistd::getuid().as_raw())
}

/// Held open and locked by the lab's processes for as long as one of them lives: the kernel lets go of it however they
/// end, so a folder whose lock can be taken belongs to nobody.
///
/// Not a guard that unlocks when dropped: the lock belongs to the open file, which launcher and lab share.
pub(crate) type Lock = File;

#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
}

impl StateDir {
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// Mount point of the lab's file system in memory; always empty as the host sees it.
    pub fn memory(&self) -> PathBuf {
        self.path.join("memory")
    }

    /// Makes the folder (0700) and takes its lock; what an earlier lab left there is removed.
    pub fn claim(&self, name: &str) -> Result<Lock, ClusterError> {
        if let Some(parent) = self.path.parent() {
            make_private(parent, &state_root())?;
        }
        make_private(&self.path, &self.path)?;
        let Some(lock) = self.try_lock()? else {
            let pid = self.read_record().map_or(0, |record| record.pid);
            return Err(ClusterError::AlreadyRunning { name: name.to_owned(), pid });
        };
        for stale in ["lab.json", "kubeconfig", "log"] {
            let _ = fs::remove_file(self.path.join(stale));
        }
        make_private(&self.memory(), &self.memory())?;
        Ok(lock)
    }

    fn try_lock(&self) -> Result<Option<Lock>, ClusterError> {
        let path = self.path.join("lock");
        let failed = |action, source| ClusterError::StateDir { action, path: path.clone(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|source| failed("opening", source))?;
        match file.try_lock() {
            // Between opening and locking, a sweeper may have removed the file, and another lab made it anew: then
            // this lock protects nothing.
            Ok(()) => Ok(is_same_file(&file, &path).then_some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed("locking", source)),
        }
    }

    /// Removes the folder when no lab's process holds it any more; whether it did.
    pub fn remove_if_abandoned(&self) -> bool {
        if !self.path.is_dir() {
            return false;
        }
        // Held while removing, so that nobody claims the folder meanwhile.
        let Ok(Some(_lock)) = self.try_lock() else { return false };
        self.remove();
        true
    }

    pub fn open_log(&self) -> Result<File, ClusterError> {
        let path = self.path.join("log");
        OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(|source| ClusterError::StateDir {
            action: "opening",
            path,
            source,
        })
    }

    /// The last lines of the log, for error messages.
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.path.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    pub fn write_record(&self, record: &LabRecord) -> Result<(), ClusterError> {
        let path = self.path.join("lab.json");
        let failed = |source| ClusterError::StateDir { action: "writing", path: path.clone(), source };
        let text = serde_json::to_vec_pretty(record).map_err(|e| failed(io::Error::other(e)))?;
        // Renamed into place: a reader never sees half a record.
        let temporary = self.path.join("lab.json.new");
        fs::write(&temporary, text).map_err(failed)?;
        fs::rename(&temporary, &path).map_err(failed)
    }

    pub fn read_record(&self) -> Option<LabRecord> {
        serde_json::from_slice(&fs::read(self.path.join("lab.json")).ok()?).ok()
    }

    /// Removes the folder with what this module puts into it, and nothing else: the path may be the user's choice.
    pub fn remove(&self) {
        for file in ["lab.json", "lab.json.new", "kubeconfig", "kubeconfig.new", "log", "lock"] {
            let _ = fs::remove_file(self.path.join(file));
        }
        let _ = fs::remove_dir(self.memory());
        let _ = fs::remove_dir(&self.path);
    }
}

fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Makes `path` (0700) when it is missing; refuses a folder of somebody else. Other folders than `private` are left as
/// they are: the user may have chosen a place inside a shared one.
fn make_private(path: &Path, private: &Path) -> Result<(), ClusterError> {
    let failed = |action, source| ClusterError::StateDir { action, path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| failed("making the folder", source))?;
    if path == private && !is_own_folder(path) {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user");
        return Err(failed("using the folder", source));
    }
    Ok(())
}

/// When the process began, in clock ticks since boot; `None` when it is gone, or dead and not yet reaped.
pub(crate) fn process_start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command (field 2) is in parentheses and may hold anything, so fields are counted from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    // A first thread that has ended is a zombie for as long as others of the process run, and hold its files.
    if matches!(state, "Z" | "X") && threads <= 1 {
        return None;
    }
    fields.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pid: i32, start_time: u64) -> LabRecord {
        let (state_dir, kubeconfig) = (PathBuf::from("/a"), PathBuf::from("/a/kubeconfig"));
        LabRecord { name: "a".to_owned(), pid, start_time, lifetime: Lifetime::Detached, api_address: None, kubeconfig, state_dir }
    }

    #[test]
    fn a_reused_pid_is_not_the_lab() {
        let me = std::process::id().cast_signed();
        let start = process_start_time(me).unwrap();
        assert!(record(me, start).is_alive());
        assert!(!record(me, start + 1).is_alive());
    }

    #[test]
    fn one_lab_a_folder_until_its_lock_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::at(&folder.path().join("lab"));
        let lock = dir.claim("lab").unwrap();
        dir.write_record(&record(77, 1)).unwrap();
        assert!(!dir.remove_if_abandoned());
        assert!(matches!(dir.claim("lab"), Err(ClusterError::AlreadyRunning { pid: 77, .. })));
        drop(lock);
        let lock = dir.claim("lab").unwrap();
        assert_eq!(dir.read_record(), None, "what the last lab left must be gone");
        drop(lock);
        assert!(dir.remove_if_abandoned());
        assert!(!dir.path().exists());
    }

    #[test]
    fn removing_spares_what_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::at(folder.path());
        drop(dir.claim("lab").unwrap());
        fs::write(folder.path().join("mine"), "x").unwrap();
        dir.remove();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
