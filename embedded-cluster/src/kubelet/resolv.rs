//! A pod's /etc/resolv.conf, by `dnsPolicy` and `dnsConfig`.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

/// The kubelet's limit of search domains (`MaxDNSSearchPaths`).
const MAX_SEARCH: usize = 32;
/// glibc reads no more.
const MAX_NAMESERVERS: usize = 3;

pub(super) fn resolv_conf(pod: &Pod, cluster_dns: Ipv4Addr, domain: &str) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let config = spec.dns_config.unwrap_or_default();
    let on_host = spec.host_network == Some(true);
    let (mut nameservers, mut searches, mut options) = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" if !on_host => cluster_first(cluster_dns, namespace, domain),
        "ClusterFirstWithHostNet" => cluster_first(cluster_dns, namespace, domain),
        // `None` takes everything from dnsConfig. `Default` is the node's own resolver: nodes of the lab have none, as
        // no traffic leaves it.
        _ => (Vec::new(), Vec::new(), Vec::new()),
    };
    merge(&config, &mut nameservers, &mut searches, &mut options);
    let mut lines = Vec::new();
    if !searches.is_empty() {
        lines.push(format!("search {}", searches.join(" ")));
    }
    lines.extend(nameservers.iter().map(|server| format!("nameserver {server}")));
    if !options.is_empty() {
        let options: Vec<String> =
            options.iter().map(|(name, value)| value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}"))).collect();
        lines.push(format!("options {}", options.join(" ")));
    }
    lines.push(String::new());
    lines.join("\n")
}

type Options = Vec<(String, Option<String>)>;

fn cluster_first(cluster_dns: Ipv4Addr, namespace: &str, domain: &str) -> (Vec<String>, Vec<String>, Options) {
    let searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    (vec![cluster_dns.to_string()], searches, vec![("ndots".to_owned(), Some("5".to_owned()))])
}

fn merge(config: &PodDNSConfig, nameservers: &mut Vec<String>, searches: &mut Vec<String>, options: &mut Options) {
    for server in config.nameservers.iter().flatten() {
        if !nameservers.contains(server) {
            nameservers.push(server.clone());
        }
    }
    nameservers.truncate(MAX_NAMESERVERS);
    for search in config.searches.iter().flatten() {
        if !searches.contains(search) {
            searches.push(search.clone());
        }
    }
    searches.truncate(MAX_SEARCH);
    for option in config.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        options.retain(|(known, _)| known != name);
        options.push((name.clone(), option.value.clone()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "shop"}, "spec": spec})).expect("a Pod");
        resolv_conf(&pod, Ipv4Addr::new(10, 96, 0, 10), "cluster.local")
    }

    #[test]
    fn cluster_first_is_the_default() {
        let expected = "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(of(json!({})), expected);
        assert_eq!(of(json!({"dnsPolicy": "ClusterFirst"})), expected);
    }

    #[test]
    fn dns_config_adds_and_overrides() {
        let config = json!({"nameservers": ["10.0.0.9"], "searches": ["extra.test"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        assert_eq!(
            of(json!({"dnsConfig": config.clone()})),
            "search shop.svc.cluster.local svc.cluster.local cluster.local extra.test\nnameserver 10.96.0.10\nnameserver 10.0.0.9\noptions \
             ndots:2 edns0\n"
        );
        assert_eq!(
            of(json!({"dnsPolicy": "None", "dnsConfig": config})),
            "search extra.test\nnameserver 10.0.0.9\noptions ndots:2 edns0\n"
        );
    }
}
