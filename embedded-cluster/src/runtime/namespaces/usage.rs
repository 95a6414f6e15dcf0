//! Memory and CPU of a container's processes, from /proc: no cgroup of one's own is to be had without root.

use std::fs;

/// Of all processes in one pid namespace together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes; pages that processes share count for each of them.
    pub resident: u64,
    pub cpu_nanoseconds: u64,
}

/// `namespace` is what `/proc/PID/ns/pid` reads for its processes. Blocks for as long as /proc takes: about 20 µs a
/// process of the lab.
pub(super) fn of_namespace(namespace: &str) -> Usage {
    let mut sum = Usage::default();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_process = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        if !is_process || fs::read_link(entry.path().join("ns/pid")).map_or(true, |link| link.to_string_lossy() != namespace) {
            continue;
        }
        let statm = fs::read_to_string(entry.path().join("statm")).unwrap_or_default();
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        sum.resident += resident_pages(&statm).unwrap_or(0) * page_size();
        sum.cpu_nanoseconds += cpu_ticks(&stat).unwrap_or(0) * 1_000_000_000 / ticks_per_second();
    }
    sum
}

fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
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
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
        assert!(of_namespace(&namespace.to_string_lossy()).resident > 100_000);
        assert_eq!(of_namespace("pid:[0]"), Usage::default());
    }
}
