//! Services, endpoints, Ingresses, NetworkPolicies.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::super::status::FieldError;
use super::{Errors, immutable, is_absent, items, names, one_of, port_number, port_or_name, text};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn service(next: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = &next["spec"];
    let kind = text(&spec["type"]);
    let headless = spec["clusterIP"] == "None";
    if is_absent(&spec["ports"]) && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    one_of(&spec["type"], "spec.type".to_owned(), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &"None".into(), &detail));
    }
    if kind == "ExternalName" {
        match text(&spec["externalName"]) {
            "" => errors.push(FieldError::required("spec.externalName", "")),
            name => names::subdomain(name.trim_end_matches('.'), "spec.externalName".to_owned(), errors),
        }
    }
    one_of(&spec["sessionAffinity"], "spec.sessionAffinity".to_owned(), &["ClientIP", "None"], errors);
    names::labels(&spec["selector"], "spec.selector", errors);
    let several = items(&spec["ports"]).count() > 1;
    let (mut port_names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in items(&spec["ports"]).enumerate() {
        let at = format!("spec.ports[{index}]");
        let name = text(&port["name"]);
        if name.is_empty() && several {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if !name.is_empty() {
            names::label(name, format!("{at}.name"), errors);
            if !port_names.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &port["name"]));
            }
        }
        port_number(&port["port"], format!("{at}.port"), errors);
        one_of(&port["protocol"], format!("{at}.protocol"), &PROTOCOLS, errors);
        port_or_name(&port["targetPort"], format!("{at}.targetPort"), errors);
        if old.is_none() && kind == "ClusterIP" && port["nodePort"].as_i64().is_some_and(|p| p != 0) {
            errors.push(FieldError::forbidden(format!("{at}.nodePort"), "may not be used when `type` is 'ClusterIP'"));
        }
        if !numbers.insert((port["port"].as_i64(), text(&port["protocol"]))) {
            errors.push(FieldError::duplicate(at, &serde_json::json!({"port": port["port"], "protocol": port["protocol"]})));
        }
    }
    if let Some(old) = old
        && kind != "ExternalName"
        && old["spec"]["type"] != "ExternalName"
        && spec["clusterIP"] != old["spec"]["clusterIP"]
    {
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &serde_json::json!([spec["clusterIP"]]), "may not change once set"));
    }
}

pub(super) fn endpoints(next: &Value, errors: &mut Errors) {
    for (index, subset) in items(&next["subsets"]).enumerate() {
        for list in ["addresses", "notReadyAddresses"] {
            for (at, address) in items(&subset[list]).enumerate() {
                ip(&address["ip"], format!("subsets[{index}].{list}[{at}].ip"), errors);
            }
        }
        for (at, port) in items(&subset["ports"]).enumerate() {
            port_number(&port["port"], format!("subsets[{index}].ports[{at}].port"), errors);
        }
    }
}

pub(super) fn endpoint_slice(next: &Value, old: Option<&Value>, errors: &mut Errors) {
    one_of(&next["addressType"], "addressType".to_owned(), &["FQDN", "IPv4", "IPv6"], errors);
    if let Some(old) = old {
        immutable(&next["addressType"], &old["addressType"], "addressType", errors);
    }
    for (index, endpoint) in items(&next["endpoints"]).enumerate() {
        if is_absent(&endpoint["addresses"]) {
            errors.push(FieldError::required(format!("endpoints[{index}].addresses"), "must contain at least 1 address"));
        }
        for (at, address) in items(&endpoint["addresses"]).enumerate().filter(|_| next["addressType"] != "FQDN") {
            ip(address, format!("endpoints[{index}].addresses[{at}]"), errors);
        }
    }
}

fn ip(value: &Value, field: String, errors: &mut Errors) {
    if text(value).parse::<IpAddr>().is_err() {
        errors.push(FieldError::invalid(field, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
    }
}

pub(super) fn ingress(next: &Value, errors: &mut Errors) {
    let spec = &next["spec"];
    if is_absent(&spec["rules"]) && spec["defaultBackend"].is_null() {
        // The value is that of the rules, which are not there.
        errors.push(FieldError::invalid("spec", &Value::Null, "either `defaultBackend` or `rules` must be specified"));
    }
    if spec["defaultBackend"].is_object() {
        backend(&spec["defaultBackend"], "spec.defaultBackend", errors);
    }
    for (index, rule) in items(&spec["rules"]).enumerate() {
        let at = format!("spec.rules[{index}]");
        if let Some(host) = rule["host"].as_str().filter(|h| !h.is_empty()) {
            if host.parse::<IpAddr>().is_ok() {
                errors.push(FieldError::invalid(format!("{at}.host"), &rule["host"], "must be a DNS name, not an IP address"));
            } else {
                names::subdomain(host.strip_prefix("*.").unwrap_or(host), format!("{at}.host"), errors);
            }
        }
        if !rule["http"].is_object() {
            continue;
        }
        if is_absent(&rule["http"]["paths"]) {
            errors.push(FieldError::required(format!("{at}.http.paths"), ""));
        }
        for (index, path) in items(&rule["http"]["paths"]).enumerate() {
            let at = format!("{at}.http.paths[{index}]");
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            match text(&path["pathType"]) {
                "" => errors.push(FieldError::required(format!("{at}.pathType"), "pathType must be specified")),
                kind if !kinds.contains(&kind) => errors.push(FieldError::unsupported(format!("{at}.pathType"), &path["pathType"], &kinds)),
                "ImplementationSpecific" if is_absent(&path["path"]) => {}
                _ if !text(&path["path"]).starts_with('/') => {
                    errors.push(FieldError::invalid(format!("{at}.path"), &text(&path["path"]).into(), "must be an absolute path"));
                }
                _ => {}
            }
            backend(&path["backend"], &format!("{at}.backend"), errors);
        }
    }
}

fn backend(backend: &Value, at: &str, errors: &mut Errors) {
    if backend["resource"].is_object() {
        return;
    }
    let service = &backend["service"];
    if !service.is_object() {
        errors.push(FieldError::required(at, "either service or resource must be specified"));
        return;
    }
    if text(&service["name"]).is_empty() {
        errors.push(FieldError::required(format!("{at}.service.name"), ""));
    }
    let (name, number) = (text(&service["port"]["name"]), service["port"]["number"].as_i64().unwrap_or(0));
    match (name.is_empty(), number) {
        (true, 0) => errors.push(FieldError::required(at, "port name or number is required")),
        (true, _) => port_number(&service["port"]["number"], format!("{at}.service.port.number"), errors),
        (false, 0) => names::port_name(name, format!("{at}.service.port.name"), errors),
        (false, _) => {
            errors.push(FieldError::invalid(format!("{at}.service.port"), &service["port"], "cannot set both port name & port number"))
        }
    }
}

pub(super) fn network_policy(next: &Value, errors: &mut Errors) {
    let spec = &next["spec"];
    for (index, kind) in items(&spec["policyTypes"]).enumerate() {
        one_of(kind, format!("spec.policyTypes[{index}]"), &["Egress", "Ingress"], errors);
    }
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(&spec[rules]).enumerate() {
            let at = format!("spec.{rules}[{index}]");
            for (index, port) in items(&rule["ports"]).enumerate() {
                one_of(&port["protocol"], format!("{at}.ports[{index}].protocol"), &["TCP", "UDP", "SCTP"], errors);
                if !port["port"].is_null() {
                    port_or_name(&port["port"], format!("{at}.ports[{index}].port"), errors);
                }
            }
            for (index, peer) in items(&rule[peers]).enumerate() {
                let at = format!("{at}.{peers}[{index}]");
                let block = &peer["ipBlock"];
                let selects = peer["podSelector"].is_object() || peer["namespaceSelector"].is_object();
                if block.is_object() && selects {
                    errors.push(FieldError::forbidden(at.clone(), "may not specify both ipBlock and another peer"));
                } else if !block.is_object() && !selects {
                    errors.push(FieldError::required(at.clone(), "must specify a peer"));
                }
                if block.is_object() {
                    ip_block(block, &format!("{at}.ipBlock"), errors);
                }
            }
        }
    }
}

fn ip_block(block: &Value, at: &str, errors: &mut Errors) {
    let bad = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let Ok(range) = text(&block["cidr"]).parse::<IpNet>() else {
        errors.push(FieldError::invalid(format!("{at}.cidr"), &block["cidr"], bad));
        return;
    };
    for (index, except) in items(&block["except"]).enumerate() {
        let field = format!("{at}.except[{index}]");
        match text(except).parse::<IpNet>() {
            Ok(inner) if range.contains(&inner) && range != inner => {}
            Ok(_) => errors.push(FieldError::invalid(field, except, &format!("must be a strict subset of `cidr`: \"{range}\""))),
            Err(_) => errors.push(FieldError::invalid(field, except, bad)),
        }
    }
}
