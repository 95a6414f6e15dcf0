//! Pods and pod templates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::status::FieldError;
use super::{Errors, is_absent, items, names, not_negative, one_of, port_number, port_or_name, text};
use crate::store::amount;

const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn pod(next: &Value, old: Option<&Value>, errors: &mut Errors) {
    match old {
        None => spec(&next["spec"], "spec", errors),
        Some(old) => update(&next["spec"], &old["spec"], errors),
    }
}

fn update(next: &Value, old: &Value, errors: &mut Errors) {
    let comparable = |spec: &Value| {
        let mut spec = spec.clone();
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(container) = container.as_object_mut() {
                    container.remove("image");
                }
            }
        }
        if let Some(spec) = spec.as_object_mut() {
            // Ephemeral containers have a subresource of their own, which comes by here as well.
            for field in ["activeDeadlineSeconds", "tolerations", "ephemeralContainers", "schedulingGates"] {
                spec.remove(field);
            }
        }
        spec
    };
    if comparable(next) != comparable(old) {
        errors.push(FieldError::forbidden("spec", MUTABLE));
    }
    let kept = items(&old["tolerations"]).all(|toleration| items(&next["tolerations"]).any(|t| t == toleration));
    if !kept {
        errors.push(FieldError::forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"));
    }
    for list in ["containers", "initContainers"] {
        for (index, container) in items(&next[list]).enumerate() {
            if text(&container["image"]).is_empty() {
                errors.push(FieldError::required(format!("spec.{list}[{index}].image"), ""));
            }
        }
    }
}

/// A pod's or a template's spec; `at` is its path.
pub(super) fn spec(spec: &Value, at: &str, errors: &mut Errors) {
    if is_absent(&spec["containers"]) {
        errors.push(FieldError::required(format!("{at}.containers"), ""));
    }
    let mut volumes = BTreeSet::new();
    for (index, volume) in items(&spec["volumes"]).enumerate() {
        let field = format!("{at}.volumes[{index}].name");
        let name = text(&volume["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else {
            names::label(name, field.clone(), errors);
            if !volumes.insert(name) {
                errors.push(FieldError::duplicate(field, &volume["name"]));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in items(&spec[list]).enumerate() {
            let at = format!("{at}.{list}[{index}]");
            let name = text(&container["name"]);
            if name.is_empty() {
                errors.push(FieldError::required(format!("{at}.name"), ""));
            } else {
                names::label(name, format!("{at}.name"), errors);
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(format!("{at}.name"), &container["name"]));
                }
            }
            self::container(container, &at, &volumes, list, errors);
        }
    }
    one_of(&spec["restartPolicy"], format!("{at}.restartPolicy"), &["Always", "OnFailure", "Never"], errors);
    one_of(&spec["dnsPolicy"], format!("{at}.dnsPolicy"), &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], errors);
    not_negative(&spec["terminationGracePeriodSeconds"], &format!("{at}.terminationGracePeriodSeconds"), errors);
    names::labels(&spec["nodeSelector"], &format!("{at}.nodeSelector"), errors);
    if let Some(hostname) = spec["hostname"].as_str().filter(|h| !h.is_empty()) {
        names::label(hostname, format!("{at}.hostname"), errors);
    }
}

fn resources(resources: &Value, at: &str, errors: &mut Errors) {
    for (name, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][name];
        if let (Some(most), Some(asked)) = (amount(text(limit)), amount(text(request)))
            && asked > most
        {
            let detail = format!("must be less than or equal to {name} limit of {}", text(limit));
            errors.push(FieldError::invalid(format!("{at}.requests"), request, &detail));
        }
    }
}

fn container(container: &Value, at: &str, volumes: &BTreeSet<&str>, list: &str, errors: &mut Errors) {
    let image = text(&container["image"]);
    if image.is_empty() {
        errors.push(FieldError::required(format!("{at}.image"), ""));
    } else if image != image.trim() {
        errors.push(FieldError::invalid(format!("{at}.image"), &container["image"], "must not have leading or trailing whitespace"));
    }
    let mut port_names = BTreeSet::new();
    for (index, port) in items(&container["ports"]).enumerate() {
        let at = format!("{at}.ports[{index}]");
        if port["containerPort"].is_null() || port["containerPort"] == 0 {
            errors.push(FieldError::required(format!("{at}.containerPort"), ""));
        } else {
            port_number(&port["containerPort"], format!("{at}.containerPort"), errors);
        }
        if let Some(name) = port["name"].as_str().filter(|n| !n.is_empty()) {
            names::port_name(name, format!("{at}.name"), errors);
            if !port_names.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &port["name"]));
            }
        }
        one_of(&port["protocol"], format!("{at}.protocol"), &["SCTP", "TCP", "UDP"], errors);
    }
    for (index, variable) in items(&container["env"]).enumerate() {
        if text(&variable["name"]).is_empty() {
            errors.push(FieldError::required(format!("{at}.env[{index}].name"), ""));
        }
        if !is_absent(&variable["value"]) && variable["valueFrom"].is_object() {
            let field = format!("{at}.env[{index}].valueFrom");
            errors.push(FieldError::invalid(field, &"".into(), "may not be specified when `value` is not empty"));
        }
    }
    one_of(&container["imagePullPolicy"], format!("{at}.imagePullPolicy"), &["Always", "IfNotPresent", "Never"], errors);
    resources(&container["resources"], &format!("{at}.resources"), errors);
    for (index, mount) in items(&container["volumeMounts"]).enumerate() {
        let at = format!("{at}.volumeMounts[{index}]");
        let name = text(&mount["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::not_found(format!("{at}.name"), &mount["name"]));
        }
        if text(&mount["mountPath"]).is_empty() {
            errors.push(FieldError::required(format!("{at}.mountPath"), ""));
        }
    }
    let restartable = list == "initContainers" && container["restartPolicy"] == "Always";
    for name in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        if container[name].is_object() && list != "containers" && !restartable {
            let detail = if list == "initContainers" {
                "may not be set for init containers without restartPolicy=Always"
            } else {
                "cannot be set for an Ephemeral Container"
            };
            errors.push(FieldError::forbidden(format!("{at}.{name}"), detail));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container[name].is_object() {
            probe(&container[name], &format!("{at}.{name}"), name, errors);
        }
    }
    for hook in ["postStart", "preStop"] {
        if container["lifecycle"][hook].is_object() {
            handler(&container["lifecycle"][hook], &format!("{at}.lifecycle.{hook}"), &["exec", "httpGet", "tcpSocket", "sleep"], errors);
        }
    }
}

fn probe(probe: &Value, at: &str, name: &str, errors: &mut Errors) {
    handler(probe, at, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        not_negative(&probe[field], &format!("{at}.{field}"), errors);
    }
    if name != "readinessProbe" && probe["successThreshold"].as_i64().is_some_and(|n| n != 1) {
        errors.push(FieldError::invalid(format!("{at}.successThreshold"), &probe["successThreshold"], "must be 1"));
    }
}

fn handler(handler: &Value, at: &str, known: &[&str], errors: &mut Errors) {
    let given: Vec<&&str> = known.iter().filter(|field| handler[**field].is_object()).collect();
    match given.as_slice() {
        [] => errors.push(FieldError::required(at, "must specify a handler type")),
        [_] => {}
        [_, more @ ..] => {
            errors.extend(more.iter().map(|f| FieldError::forbidden(format!("{at}.{f}"), "may not specify more than 1 handler type")));
        }
    }
    for field in ["httpGet", "tcpSocket"] {
        if handler[field].is_object() {
            port_or_name(&handler[field]["port"], format!("{at}.{field}.port"), errors);
        }
    }
    if handler["exec"].is_object() && is_absent(&handler["exec"]["command"]) {
        errors.push(FieldError::required(format!("{at}.exec.command"), ""));
    }
}
