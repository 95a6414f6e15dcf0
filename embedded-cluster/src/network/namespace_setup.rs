//! What every namespace of the cluster needs before anything else.

use super::error::NetworkError;
use super::links;
use super::netlink::NetlinkSocket;
use super::netns::Netns;

/// Settings that make a namespace more like a real node's or pod's; written where /proc/sys is writable. Nothing else
/// depends on them: forwarding, which does matter, is set by netlink per interface.
const SETTINGS: &[(&str, &str)] = &[
    // Containers bind port 80 without capabilities, as containerd arranges it since Kubernetes 1.22.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    // Where the host insists on strict reverse paths, new namespaces inherit it; packets in flight while a link is
    // switched to another interface would be lost to it.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    // No router solicitations and duplicate address detection on interfaces made later; ::1 on lo is kept.
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];
const FORWARDING: &[(&str, &str)] = &[("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/all/send_redirects", "0")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Forwards between its interfaces.
    Router,
    /// An end of the network.
    Host,
}

/// Makes a namespace with its loopback up, and opens a routing socket in it.
pub(super) fn create(name: &str, role: Role) -> Result<(Netns, NetlinkSocket), NetworkError> {
    Netns::create_and(name, || {
        // Before interfaces exist, so that they start with the new defaults.
        write_settings(SETTINGS);
        if role == Role::Router {
            write_settings(FORWARDING);
        }
        let mut route = NetlinkSocket::open(libc::NETLINK_ROUTE)?;
        route.request(&[links::set_up(links::LOOPBACK)])?;
        Ok(route)
    })
}

fn write_settings(settings: &[(&str, &str)]) {
    for (path, value) in settings {
        if let Err(error) = std::fs::write(format!("/proc/sys/{path}"), value) {
            tracing::debug!(path, value, %error, "kernel setting left as it is");
        }
    }
}
