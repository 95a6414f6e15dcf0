//! Rows of Services, endpoints, Ingresses and policies.

use serde_json::Value;

use super::text::{NONE, age, first_three, list, name, number, or_none, selector};

pub(super) fn service(o: &Value) -> Vec<Value> {
    let spec = &o["spec"];
    let kind = spec["type"].as_str().unwrap_or_default();
    let ports: Vec<String> = list(&spec["ports"])
        .map(|port| {
            let (number_, protocol) = (number(&port["port"]), port["protocol"].as_str().unwrap_or("TCP"));
            match port["nodePort"].as_i64() {
                Some(node) if node > 0 => format!("{number_}:{node}/{protocol}"),
                _ => format!("{number_}/{protocol}"),
            }
        })
        .collect();
    let ports = if ports.is_empty() { NONE.to_owned() } else { ports.join(",") };
    vec![
        name(o),
        kind.into(),
        or_none(&spec["clusterIP"]),
        external(o, kind).into(),
        ports.into(),
        age(o),
        super::text::labels(&spec["selector"]).into(),
    ]
}

fn external(service: &Value, kind: &str) -> String {
    let fixed: Vec<&str> = list(&service["spec"]["externalIPs"]).filter_map(Value::as_str).collect();
    match kind {
        "ExternalName" => service["spec"]["externalName"].as_str().unwrap_or_default().to_owned(),
        "LoadBalancer" => {
            let balancer = balancer(service);
            let all: Vec<&str> = balancer.iter().map(String::as_str).chain(fixed).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ if fixed.is_empty() => NONE.to_owned(),
        _ => fixed.join(","),
    }
}

fn balancer(object: &Value) -> Vec<String> {
    list(&object["status"]["loadBalancer"]["ingress"])
        .filter_map(|entry| entry["ip"].as_str().filter(|ip| !ip.is_empty()).or_else(|| entry["hostname"].as_str()))
        .map(str::to_owned)
        .collect()
}

pub(super) fn endpoints(o: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(&o["subsets"]) {
        let ports: Vec<i64> = list(&subset["ports"]).map(|port| number(&port["port"])).collect();
        for address in list(&subset["addresses"]).filter_map(|a| a["ip"].as_str()) {
            if ports.is_empty() {
                all.push(address.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{address}:{port}")));
        }
    }
    vec![name(o), first_three(&all).into(), age(o)]
}

pub(super) fn endpoint_slice(o: &Value) -> Vec<Value> {
    let ports: Vec<String> =
        list(&o["ports"]).map(|port| port["port"].as_i64().map_or_else(|| "*".to_owned(), |n| n.to_string())).collect();
    let ports = if ports.is_empty() { "<unset>".to_owned() } else { first_three(&ports) };
    let endpoints: Vec<String> =
        list(&o["endpoints"]).flat_map(|e| list(&e["addresses"])).filter_map(Value::as_str).map(str::to_owned).collect();
    let endpoints = if endpoints.is_empty() { "<unset>".to_owned() } else { first_three(&endpoints) };
    vec![name(o), o["addressType"].as_str().unwrap_or_default().into(), ports.into(), endpoints.into(), age(o)]
}

pub(super) fn ingress(o: &Value) -> Vec<Value> {
    let spec = &o["spec"];
    let hosts: Vec<String> = list(&spec["rules"]).filter_map(|r| r["host"].as_str()).filter(|h| !h.is_empty()).map(str::to_owned).collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { first_three(&hosts) };
    let ports = if list(&spec["tls"]).next().is_some() { "80, 443" } else { "80" };
    vec![name(o), or_none(&spec["ingressClassName"]), hosts.into(), balancer(o).join(",").into(), ports.into(), age(o)]
}

pub(super) fn ingress_class(o: &Value) -> Vec<Value> {
    let parameters = &o["spec"]["parameters"];
    let parameters = match parameters["kind"].as_str() {
        None => NONE.to_owned(),
        Some(kind) => {
            let group = parameters["apiGroup"].as_str().map(|g| format!(".{g}")).unwrap_or_default();
            format!("{kind}{group}/{}", parameters["name"].as_str().unwrap_or_default())
        }
    };
    vec![name(o), o["spec"]["controller"].as_str().unwrap_or_default().into(), parameters.into(), age(o)]
}

pub(super) fn network_policy(o: &Value) -> Vec<Value> {
    vec![name(o), selector(&o["spec"]["podSelector"]).into(), age(o)]
}
