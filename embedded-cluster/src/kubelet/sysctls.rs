//! Which kernel parameters a pod may set: those that are namespaced and harm nobody else
//! (`pkg/kubelet/sysctl/safe_sysctls.go`). All others would need `--allowed-unsafe-sysctls`, which this kubelet has not.

use k8s_openapi::api::core::v1::Pod;

const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why the pod cannot run here.
pub(super) fn refused(pod: &Pod) -> Option<String> {
    let security = pod.spec.as_ref()?.security_context.as_ref()?;
    let on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    security.sysctls.iter().flatten().find_map(|sysctl| {
        let name = sysctl.name.replace('/', ".");
        if !SAFE.contains(&name.as_str()) {
            return Some(format!("forbidden sysctl: \"{name}\" not allowlisted"));
        }
        (on_host && name.starts_with("net.")).then(|| format!("forbidden sysctl: \"{name}\" not allowed with host net enabled"))
    })
}
