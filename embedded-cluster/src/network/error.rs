//! What can go wrong between the lab and the kernel's network.

use std::io;
use std::net::Ipv4Addr;

/// Errors of the data plane. Each names what was attempted; kernel refusals carry the kernel's own errno and, where it
/// sends one, its explanation (netlink extended acknowledgements).
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// `unshare(CLONE_NEWNET)` or entering a namespace was refused.
    #[error("cannot {action} network namespace \"{namespace}\": {source}{}", namespace_hint(.source))]
    Namespace { action: &'static str, namespace: String, source: io::Error },
    /// A netlink request was refused.
    #[error("cannot {action}: {source}{}", detail_suffix(.detail))]
    Kernel { action: String, detail: Option<String>, source: io::Error },
    /// The kernel answered something that is not netlink as documented.
    #[error("cannot {action}: the kernel's answer is malformed: {detail}")]
    Malformed { action: String, detail: String },
    /// A thread of the data plane ended before its work was done.
    #[error("cannot {action}: its thread ended early")]
    ThreadLost { action: String },
    #[error("there is no node \"{0}\" in the network")]
    UnknownNode(String),
    #[error("node \"{0}\" is already in the network")]
    NodeExists(String),
    #[error("pod {pod_uid} is already attached to node \"{node}\"")]
    AttachedElsewhere { pod_uid: String, node: String },
    #[error("node \"{node}\" has no free pod address left in its range {range}")]
    AddressesExhausted { node: String, range: ipnet::Ipv4Net },
    #[error("the network plan asks for what the data plane cannot do: {0}")]
    Unsupported(String),
    #[error("address {0} is used twice in the network")]
    AddressInUse(Ipv4Addr),
}

impl NetworkError {
    /// The kernel's errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Namespace { source, .. } | Self::Kernel { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

fn detail_suffix(detail: &Option<String>) -> String {
    detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

fn namespace_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => " (needs CAP_SYS_ADMIN: run as root or inside a user namespace of one's own)",
        Some(libc::ENOSPC) => " (the limit user.max_net_namespaces is reached)",
        _ => "",
    }
}
