//! Tells which setting of the machine refused a namespace.

use std::fs;

use nix::errno::Errno;

use crate::cluster::Barrier;

/// `action` was refused with `errno` while making the namespaces.
pub(super) fn explain(action: &str, errno: Errno) -> Barrier {
    let detail = format!("{action}: {}", errno.desc());
    classify(errno, detail, |path| fs::read_to_string(path).ok().map(|text| text.trim().to_owned()))
}

fn classify(errno: Errno, detail: String, setting: impl Fn(&str) -> Option<String>) -> Barrier {
    let limit = setting("/proc/sys/user/max_user_namespaces");
    // unshare(2): ENOSPC is the limit of this or an outer user namespace; some kernels before 4.9 say EUSERS.
    if matches!(errno, Errno::ENOSPC | Errno::EUSERS) || limit.as_deref() == Some("0") {
        return Barrier::Limit { limit: limit.unwrap_or_else(|| "unknown".to_owned()) };
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return Barrier::CloneSysctl;
    }
    // Ubuntu 23.10 and later: the namespace is made, but the first use of a capability in it fails.
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return Barrier::AppArmor;
    }
    Barrier::Confined { detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_told_apart() {
        let with = |errno, name: &str, value: &str| classify(errno, "x".to_owned(), |path| path.ends_with(name).then(|| value.to_owned()));
        assert_eq!(with(Errno::ENOSPC, "max_user_namespaces", "4"), Barrier::Limit { limit: "4".to_owned() });
        assert_eq!(with(Errno::EPERM, "unprivileged_userns_clone", "0"), Barrier::CloneSysctl);
        assert_eq!(with(Errno::EPERM, "unprivileged_userns_clone", "1"), Barrier::Confined { detail: "x".to_owned() });
        assert_eq!(with(Errno::EACCES, "apparmor_restrict_unprivileged_userns", "1"), Barrier::AppArmor);
    }
}
