//! Service addresses and node ports: those asked for are checked, missing ones are given, as kube-apiserver's
//! allocators do it. The Services themselves are the record of what is taken.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rand::RngExt;
use serde_json::{Value, json};

use super::objects::{Fault, Reason};
use super::shard::Table;

const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// 10.96.0.0/16, as kubeadm and kind set it.
fn service_range() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16)
}

/// Completes one Service against all others.
///
/// # Errors
/// `Invalid` when an address or port asked for is taken or out of range.
pub(super) fn allocate(services: &Table, service: &mut Value) -> Result<(), Fault> {
    let kind = service["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
    let field = |field: &str| service["metadata"][field].as_str().unwrap_or_default().to_owned();
    let own = (field("namespace"), field("name"));
    let others = || services.iter().filter(|(key, _)| **key != own).map(|(_, other)| other);
    if kind == "ExternalName" {
        if let Some(spec) = service["spec"].as_object_mut() {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
                spec.remove(field);
            }
        }
        return Ok(());
    }
    let asked = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    // What it has already needs no look at all others: most changes of Services are not about addresses.
    let holds = services.get(&own).is_some_and(|now| now["spec"]["clusterIP"] == asked.as_str());
    let address = match asked.as_str() {
        "None" => "None".to_owned(),
        "" => {
            let taken: BTreeSet<&str> = others().filter_map(|o| o["spec"]["clusterIP"].as_str()).collect();
            free_address(&taken).ok_or_else(|| invalid(service, "spec.clusterIP", &asked, "the service address range is full"))?
        }
        given => {
            let in_range = given.parse::<Ipv4Addr>().is_ok_and(|a| service_range().contains(&a));
            if !in_range {
                let detail = "failed to allocate IP: the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/16";
                return Err(invalid(service, "spec.clusterIPs", &format!("[\"{given}\"]"), detail));
            }
            if !holds && others().any(|o| o["spec"]["clusterIP"] == given) {
                let detail = format!("failed to allocate IP {given}: provided IP is already allocated");
                return Err(invalid(service, "spec.clusterIPs", &format!("[\"{given}\"]"), &detail));
            }
            given.to_owned()
        }
    };
    let wants_node_ports =
        kind == "NodePort" || kind == "LoadBalancer" && service["spec"]["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true);
    let mut taken: BTreeSet<(u64, String)> =
        if wants_node_ports || kind == "LoadBalancer" { others().flat_map(|o| node_ports(o)).collect() } else { BTreeSet::new() };
    let count = service["spec"]["ports"].as_array().map_or(0, Vec::len);
    for index in 0..count {
        let port = &service["spec"]["ports"][index];
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        let asked = port["nodePort"].as_u64().unwrap_or(0);
        let node_port = if asked != 0 && (wants_node_ports || kind == "LoadBalancer") {
            let path = format!("spec.ports[{index}].nodePort");
            if !u16::try_from(asked).is_ok_and(|p| NODE_PORTS.contains(&p)) {
                let detail = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                return Err(invalid(service, &path, &asked.to_string(), detail));
            }
            if taken.contains(&(asked, protocol.clone())) {
                return Err(invalid(service, &path, &asked.to_string(), "provided port is already allocated"));
            }
            asked
        } else if wants_node_ports {
            free_port(&taken, &protocol)
                .ok_or_else(|| invalid(service, "spec.ports", "", "failed to allocate a nodePort: range is full"))?
        } else {
            if let Some(port) = service["spec"]["ports"][index].as_object_mut() {
                port.remove("nodePort");
            }
            continue;
        };
        taken.insert((node_port, protocol));
        service["spec"]["ports"][index]["nodePort"] = node_port.into();
    }
    let spec = &mut service["spec"];
    spec["clusterIP"] = address.clone().into();
    spec["clusterIPs"] = json!([address]);
    spec["ipFamilies"] = json!(["IPv4"]);
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    Ok(())
}

/// What an update that says nothing of them keeps: the address, and the node ports of ports that are still there
/// (kube-apiserver's `patchAllocatedValues`).
pub(crate) fn keep_allocated(resource: &super::Resource, old: &Value, next: &mut Value) {
    if !(resource.group.is_empty() && resource.plural == "services") {
        return;
    }
    let kind = |service: &Value| service["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
    if kind(old) == "ExternalName" || kind(next) == "ExternalName" {
        return;
    }
    if next["spec"]["clusterIP"].as_str().is_none_or(str::is_empty) {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(field) {
                next["spec"][field] = value.clone();
            }
        }
    }
    let identity = |port: &Value| (port["port"].as_u64(), port["protocol"].as_str().unwrap_or("TCP").to_owned());
    let had: Vec<_> = old["spec"]["ports"].as_array().into_iter().flatten().map(|p| (identity(p), p["nodePort"].clone())).collect();
    for port in next["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if port["nodePort"].as_u64().unwrap_or(0) == 0
            && let Some((_, node_port)) = had.iter().find(|(id, node_port)| *id == identity(port) && !node_port.is_null())
        {
            port["nodePort"] = node_port.clone();
        }
    }
}

fn node_ports(service: &Value) -> impl Iterator<Item = (u64, String)> + '_ {
    service["spec"]["ports"].as_array().into_iter().flatten().filter_map(|port| {
        let number = port["nodePort"].as_u64().filter(|n| *n != 0)?;
        Some((number, port["protocol"].as_str().unwrap_or("TCP").to_owned()))
    })
}

/// A random address beyond the first 256, which are left for those that ask (kube-apiserver's `ServiceIPStaticSubrange`).
fn free_address(taken: &BTreeSet<&str>) -> Option<String> {
    let range = service_range();
    let first = u32::from(range.network()) + 257;
    let last = u32::from(range.broadcast()) - 1;
    let start = rand::rng().random_range(first..=last);
    (start..=last).chain(first..start).map(|n| Ipv4Addr::from(n).to_string()).find(|a| !taken.contains(a.as_str()))
}

/// The first 86 ports are left for those that ask, too.
fn free_port(taken: &BTreeSet<(u64, String)>, protocol: &str) -> Option<u64> {
    let (first, last) = (u64::from(*NODE_PORTS.start()) + 86, u64::from(*NODE_PORTS.end()));
    let start = rand::rng().random_range(first..=last);
    (start..=last).chain(first..start).find(|port| !taken.contains(&(*port, protocol.to_owned())))
}

fn invalid(service: &Value, path: &str, value: &str, detail: &str) -> Fault {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let value = if value.is_empty() { "null" } else { value };
    Fault::new(Reason::Invalid, format!("Service \"{name}\" is invalid: {path}: Invalid value: {value}: {detail}"))
}
