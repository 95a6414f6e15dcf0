//! Pods and their templates.

use serde_json::{Value, json};

use super::super::quantities::canonicalize;
use super::{items, present, set, set_text};

pub(super) fn pod(pod: &mut Value) {
    spec(&mut pod["spec"]);
    let Some(spec) = present(pod, "spec") else { return };
    for list in ["initContainers", "containers"] {
        items(spec, list).for_each(requests_from_limits);
    }
    set(spec, "enableServiceLinks", || true.into());
    // Admission plugins Priority and DefaultTolerationSeconds.
    set(spec, "priority", || 0.into());
    set(spec, "preemptionPolicy", || "PreemptLowerPriority".into());
    tolerate_lost_nodes(spec);
    let class = qos_class(spec);
    set(pod, "status", || json!({}));
    set_text(&mut pod["status"], "phase", "Pending");
    set(&mut pod["status"], "qosClass", || class.into());
}

/// A pod's own default and not its template's, so that a Deployment's limit can be lowered alone (`SetDefaults_Pod`).
fn requests_from_limits(container: &mut Value) {
    if let Some(limits) = container["resources"]["limits"].as_object().cloned() {
        for (name, limit) in limits {
            set(&mut container["resources"]["requests"], &name, || limit);
        }
    }
}

/// What pods and templates have in common.
pub(super) fn spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set_text(spec, "restartPolicy", "Always");
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set_text(spec, "schedulerName", "default-scheduler");
    set(spec, "terminationGracePeriodSeconds", || 30.into());
    set(spec, "securityContext", || json!({}));
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for item in items(spec, list) {
            container(item);
        }
    }
    for item in items(spec, "volumes") {
        volume(item);
    }
}

fn container(container: &mut Value) {
    set_text(container, "terminationMessagePath", "/dev/termination-log");
    set_text(container, "terminationMessagePolicy", "File");
    let policy = if is_latest(container["image"].as_str().unwrap_or_default()) { "Always" } else { "IfNotPresent" };
    set_text(container, "imagePullPolicy", policy);
    set(container, "resources", || json!({}));
    if let Some(resources) = present(container, "resources") {
        canonicalize(resources, "limits");
        canonicalize(resources, "requests");
    }
    for port in items(container, "ports") {
        set_text(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        if let Some(reference) = present(variable, "valueFrom").and_then(|source| present(source, "fieldRef")) {
            set_text(reference, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = present(container, name) {
            for (field, value) in [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)] {
                if probe[field] == 0 {
                    probe[field] = Value::Null;
                }
                set(probe, field, || value.into());
            }
            http_get(probe);
            if let Some(grpc) = present(probe, "grpc") {
                set(grpc, "service", || "".into());
            }
        }
    }
    if let Some(lifecycle) = present(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = present(lifecycle, hook) {
                http_get(hook);
            }
        }
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = present(handler, "httpGet") {
        set_text(get, "path", "/");
        set_text(get, "scheme", "HTTP");
    }
}

/// Without a tag or digest, an image means `latest`.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|map| map.iter().any(|(name, value)| name != "name" && !value.is_null()));
    if !has_source {
        volume["emptyDir"] = json!({});
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = present(volume, source) {
            set(source, "defaultMode", || 0o644.into());
            field_references(source);
            for projection in items(source, "sources") {
                if let Some(token) = present(projection, "serviceAccountToken") {
                    set(token, "expirationSeconds", || 3600.into());
                }
                if let Some(downward) = present(projection, "downwardAPI") {
                    field_references(downward);
                }
            }
        }
    }
    if let Some(path) = present(volume, "hostPath") {
        set(path, "type", || "".into());
    }
}

fn field_references(source: &mut Value) {
    for item in items(source, "items") {
        if let Some(reference) = present(item, "fieldRef") {
            set_text(reference, "apiVersion", "v1");
        }
    }
}

fn tolerate_lost_nodes(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        set(spec, "tolerations", || json!([]));
        let Some(list) = spec["tolerations"].as_array_mut() else { return };
        let matches = |toleration: &Value| {
            let effect = toleration["effect"].as_str().unwrap_or_default();
            let same_key = toleration["key"].as_str().is_none_or(|k| k.is_empty() || k == key);
            same_key && matches!(effect, "" | "NoExecute")
        };
        if !list.iter().any(matches) {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort` by CPU and memory of all containers.
fn qos_class(spec: &Value) -> &'static str {
    let containers: Vec<&Value> =
        ["containers", "initContainers"].iter().flat_map(|list| spec[*list].as_array().into_iter().flatten()).collect();
    let amount = |container: &&Value, list: &str, name: &str| container["resources"][list].get(name).filter(|v| !v.is_null()).cloned();
    let asks =
        |container: &&Value| ["cpu", "memory"].iter().any(|n| ["requests", "limits"].iter().any(|l| amount(container, l, n).is_some()));
    let guaranteed = |container: &&Value| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = amount(container, "limits", name);
            limit.is_some() && limit == amount(container, "requests", name)
        })
    };
    if !containers.iter().any(asks) {
        "BestEffort"
    } else if containers.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
