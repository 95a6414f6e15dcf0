//! Which capabilities a container's processes have in the lab's user namespace.

use nix::errno::Errno;

/// In the order of <linux/capability.h>: the index is the number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd and Docker give by default.
const DEFAULTS: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// _LINUX_CAPABILITY_VERSION_3: two words of 32 capabilities each.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Numbers of the default set and the added ones; `ALL` stands for all. The name that is unknown otherwise.
pub(super) fn numbers(added: &[String]) -> Result<Vec<u8>, String> {
    let mut wanted: Vec<&str> = DEFAULTS.to_vec();
    for name in added {
        match name.strip_prefix("CAP_").unwrap_or(name) {
            "ALL" => wanted.extend(NAMES),
            name => wanted.push(name),
        }
    }
    let mut numbers = Vec::new();
    for name in wanted {
        let number = NAMES.iter().position(|known| *known == name).and_then(|n| u8::try_from(n).ok()).ok_or_else(|| name.to_owned())?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Gives up all capabilities but `kept`, for this process and what it will execute.
pub(super) fn keep_only(kept: &[u8]) -> Result<(), Errno> {
    for number in 0..64_u8 {
        if !kept.contains(&number) {
            // SAFETY: takes plain numbers. The bounding set limits what a program executed as user 0 regains.
            let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
            match Errno::result(result) {
                // EINVAL: numbers above the newest capability this kernel knows.
                Ok(_) | Err(Errno::EINVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    let mut words = [Word::default(); 2];
    for number in kept {
        let word = &mut words[usize::from(number / 32)];
        word.effective |= 1 << (number % 32);
        word.permitted |= 1 << (number % 32);
    }
    let mut header = Header { version: VERSION, pid: 0 };
    // SAFETY: header and data are laid out as <linux/capability.h> has them and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_mut(&mut header), words.as_ptr()) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn net_admin_only_when_asked_for() {
        let net_admin = 12;
        assert!(!numbers(&[]).unwrap().contains(&net_admin));
        assert!(numbers(&["NET_ADMIN".to_owned()]).unwrap().contains(&net_admin));
        assert_eq!(numbers(&["ALL".to_owned()]).unwrap().len(), NAMES.len());
        assert_eq!(numbers(&["NET_ADMlN".to_owned()]).unwrap_err(), "NET_ADMlN");
    }
}
