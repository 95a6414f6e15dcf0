//! Who is still running: after a test has made itself the subreaper, every process that a killed harness leaves behind
//! becomes its descendant and can be named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

/// From now on orphans of this process' descendants are re-parented to it (prctl(2), PR_SET_CHILD_SUBREAPER).
///
/// # Panics
/// When the kernel refuses.
pub fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).expect("PR_SET_CHILD_SUBREAPER");
}

/// What of a run is still there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Process id and command line of each living descendant; one that has ended and waits to be reaped is none.
    pub processes: BTreeMap<i32, String>,
    /// Lines of this process' mount table that were not there before.
    pub mounts: BTreeSet<String>,
}

impl Leftovers {
    pub fn now(mounts_before: &BTreeSet<String>) -> Self {
        Self { processes: descendants(), mounts: mounts().difference(mounts_before).cloned().collect() }
    }

    /// Looks again until nothing is left or `within` has passed, and returns what is left then.
    pub fn after(mounts_before: &BTreeSet<String>, within: Duration) -> Self {
        let deadline = Instant::now() + within;
        loop {
            let left = Self::now(mounts_before);
            if left == Self::default() || Instant::now() > deadline {
                return left;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// The mount table of this process' mount namespace.
///
/// # Panics
/// Without /proc.
pub fn mounts() -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mountinfo").expect("/proc").lines().map(str::to_owned).collect()
}

fn descendants() -> BTreeMap<i32, String> {
    let parents: BTreeMap<i32, (i32, bool)> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The command name, in brackets, may itself hold brackets and blanks: fields start after the last one.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let ended = matches!(fields.next()?, "Z" | "X");
            Some((pid, (fields.next()?.parse().ok()?, ended)))
        })
        .collect();
    let own = i32::try_from(std::process::id()).expect("a process id");
    parents
        .keys()
        .filter(|pid| parents.get(pid).is_some_and(|(_, ended)| !ended))
        .filter(|pid| {
            let mut at = **pid;
            while let Some((parent, _)) = parents.get(&at) {
                if *parent == own {
                    return true;
                }
                at = *parent;
            }
            false
        })
        .map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (*pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned())
        })
        .collect()
}
