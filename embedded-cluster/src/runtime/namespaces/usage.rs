//! Memory and CPU of a container's processes, from /proc: no cgroup of one's own is to be had without root.
//!
//! A container's processes are known by their mount namespace: every container has one of its own, while an ephemeral
//! container may share the pid namespace of its target.

use std::fs;
use std::path::{Path, PathBuf};

/// Of all processes of one container together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes; pages that processes share count for each of them.
    pub resident: u64,
    pub cpu_nanoseconds: u64,
}

/// `namespace` is what `/proc/PID/ns/mnt` reads for its processes. Blocks for as long as /proc takes: about 20 µs a
/// process of the lab.
pub(super) fn of_namespace(namespace: &str) -> Usage {
    let mut sum = Usage::default();
    for (_, folder) in processes().filter(|(_, folder)| mount_namespace(folder).is_some_and(|of| of == namespace)) {
        let statm = fs::read_to_string(folder.join("statm")).unwrap_or_default();
        let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        sum.resident += pages(&statm, RESIDENT).unwrap_or(0) * page_size();
        sum.cpu_nanoseconds += cpu_ticks(&stat).unwrap_or(0) * 1_000_000_000 / ticks_per_second();
    }
    sum
}

/// All processes that this process sees: pid and folder in /proc.
pub(super) fn processes() -> impl Iterator<Item = (i32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

pub(super) fn mount_namespace(process: &Path) -> Option<String> {
    fs::read_link(process.join("ns/mnt")).ok().map(|link| link.to_string_lossy().into_owned())
}

/// Bytes that only swapping could take from a process: what a cgroup's limit counts and cannot reclaim. Pages of files
/// are left out, the programs' own among them, because every container here runs from the same ones.
pub(super) fn anonymous(process: &Path) -> u64 {
    let statm = fs::read_to_string(process.join("statm")).unwrap_or_default();
    let of = |field| pages(&statm, field).unwrap_or(0);
    of(RESIDENT).saturating_sub(of(SHARED)) * page_size()
}

/// Fields of proc_pid_statm(5).
const RESIDENT: usize = 1;
const SHARED: usize = 2;

fn pages(statm: &str, field: usize) -> Option<u64> {
    statm.split_ascii_whitespace().nth(field)?.parse().ok()
}

/// Fields 14 and 15 (utime, stime) of proc_pid_stat(5), and 16 and 17 for reaped children.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11).take(4);
    Some(fields.filter_map(|field| field.parse::<u64>().ok()).sum())
}

fn page_size() -> u64 {
    configured(libc::_SC_PAGESIZE, 4096)
}

fn ticks_per_second() -> u64 {
    configured(libc::_SC_CLK_TCK, 100)
}

fn configured(name: libc::c_int, otherwise: u64) -> u64 {
    // SAFETY: takes a number, gives a number.
    u64::try_from(unsafe { libc::sysconf(name) }).ok().filter(|value| *value > 0).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 11 22 3 4 20 0 1 0 5 6";
        assert_eq!(cpu_ticks(stat), Some(40));
    }

    #[test]
    fn this_process_is_counted_in_its_namespace() {
        let namespace = fs::read_link("/proc/self/ns/mnt").unwrap();
        assert!(of_namespace(&namespace.to_string_lossy()).resident > 100_000);
        assert_eq!(of_namespace("mnt:[0]"), Usage::default());
    }

    #[test]
    fn memory_of_ones_own_is_counted_and_files_are_not() {
        let itself = Path::new("/proc/self");
        let before = anonymous(itself);
        let own = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(anonymous(itself) >= before + (48 << 20), "{before} {}", anonymous(itself));
        drop(own);
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        assert!(anonymous(itself) < pages(&statm, RESIDENT).unwrap() * page_size(), "the program's text is not counted");
    }
}
