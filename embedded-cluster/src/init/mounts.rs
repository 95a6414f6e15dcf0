//! What the lab's first process has mounted for itself; the host sees none of it, and it ends with the lab.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// Places in the lab's file system in memory.
#[derive(Clone, Debug)]
pub(super) struct LabMounts {
    /// Volumes and logs of pods, below which the kubelet makes `pods`.
    pub state: PathBuf,
    /// Where containers' file systems are put together.
    pub container_root: PathBuf,
    /// This program, pinned: it can still be started after its file was replaced by a newer build.
    pub executable: PathBuf,
}

/// Must run in a mount namespace of one's own. The action that was refused, and how.
pub(super) fn set_up(memory: &Path, executable: &Path) -> Result<LabMounts, (&'static str, Errno)> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(|errno| ("keep mounts to oneself", errno))?;
    // A view of the own pid namespace. Refused where the outer /proc is masked (mount_too_revealing), as it is inside
    // most containers; the outer one does then, as its entries are compared by namespace, never by number.
    let _ = mount(Some("proc"), "/proc", Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, none);
    mount(Some("gatelab"), memory, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0700"))
        .map_err(|errno| ("mount the lab's memory", errno))?;
    let mounts = LabMounts { state: memory.to_owned(), container_root: memory.join("root"), executable: memory.join("gatelab") };
    let made = fs::create_dir(&mounts.container_root).and_then(|()| File::create(&mounts.executable).map(drop));
    made.map_err(|error| ("make folders in the lab's memory", error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)))?;
    mount(Some(executable), &mounts.executable, none, MsFlags::MS_BIND, none).map_err(|errno| ("pin the executable", errno))?;
    Ok(mounts)
}
