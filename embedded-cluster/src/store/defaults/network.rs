//! Services, their endpoints, policies.

use serde_json::{Value, json};

use super::{items, present, set, set_text};

pub(super) fn service(service: &mut Value) {
    set(service, "spec", || json!({}));
    set(service, "status", || json!({"loadBalancer": {}}));
    let Some(spec) = present(service, "spec") else { return };
    set_text(spec, "type", "ClusterIP");
    set_text(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        set(spec, "sessionAffinityConfig", || json!({}));
        set(&mut spec["sessionAffinityConfig"], "clientIP", || json!({}));
        set(&mut spec["sessionAffinityConfig"]["clientIP"], "timeoutSeconds", || 10800.into());
    }
    for port in items(spec, "ports") {
        set_text(port, "protocol", "TCP");
        let number = port["port"].clone();
        if port["targetPort"] == 0 || port["targetPort"] == "" {
            port["targetPort"] = Value::Null;
        }
        set(port, "targetPort", || number);
    }
    match spec["type"].as_str() {
        Some("ExternalName") => return,
        Some(kind @ ("NodePort" | "LoadBalancer")) => {
            let balances = kind == "LoadBalancer";
            set_text(spec, "externalTrafficPolicy", "Cluster");
            if balances {
                set(spec, "allocateLoadBalancerNodePorts", || true.into());
            }
        }
        _ => {
            // A Service that is made internal again loses what only external ones have.
            if let Some(spec) = spec.as_object_mut() {
                spec.remove("externalTrafficPolicy");
                spec.remove("allocateLoadBalancerNodePorts");
            }
        }
    }
    set_text(spec, "internalTrafficPolicy", "Cluster");
}

pub(super) fn endpoints(endpoints: &mut Value) {
    for subset in items(endpoints, "subsets") {
        for port in items(subset, "ports") {
            set_text(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(slice: &mut Value) {
    for port in items(slice, "ports") {
        set(port, "name", || "".into());
        set_text(port, "protocol", "TCP");
    }
}

pub(super) fn network_policy(policy: &mut Value) {
    set(policy, "spec", || json!({}));
    let Some(spec) = present(policy, "spec") else { return };
    let has_egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
    set(spec, "podSelector", || json!({}));
    set(spec, "policyTypes", || if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    for rules in ["ingress", "egress"] {
        for rule in items(spec, rules) {
            for port in items(rule, "ports") {
                set_text(port, "protocol", "TCP");
            }
        }
    }
}

pub(super) fn ingress(ingress: &mut Value) {
    set(ingress, "status", || json!({"loadBalancer": {}}));
}
