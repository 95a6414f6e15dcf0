//! Rows of everything else.

use serde_json::Value;

use super::text::{NONE, UNKNOWN, age, count, list, moment, name, number, or, or_none, since};

pub(super) fn config_map(o: &Value) -> Vec<Value> {
    vec![name(o), (count(&o["data"]) + count(&o["binaryData"])).into(), age(o)]
}

pub(super) fn secret(o: &Value) -> Vec<Value> {
    vec![name(o), o["type"].as_str().unwrap_or_default().into(), count(&o["data"]).into(), age(o)]
}

pub(super) fn service_account(o: &Value) -> Vec<Value> {
    vec![name(o), count(&o["secrets"]).into(), age(o)]
}

pub(super) fn namespace(o: &Value) -> Vec<Value> {
    vec![name(o), o["status"]["phase"].as_str().unwrap_or_default().into(), age(o)]
}

pub(super) fn node(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let ready = list(&status["conditions"]).find(|c| c["type"] == "Ready");
    let mut word = match ready.map(|c| c["status"].as_str().unwrap_or_default()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if spec["unschedulable"] == true {
        word.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<String> = Vec::new();
    for (label, value) in o["metadata"]["labels"].as_object().into_iter().flatten() {
        if let Some(role) = label.strip_prefix("node-role.kubernetes.io/").filter(|role| !role.is_empty()) {
            roles.push(role.to_owned());
        } else if label == "kubernetes.io/role" {
            roles.extend(value.as_str().map(str::to_owned));
        }
    }
    roles.sort();
    let roles = if roles.is_empty() { NONE.to_owned() } else { roles.join(",") };
    let address = |wanted: &str| list(&status["addresses"]).find(|a| a["type"] == wanted).map_or(Value::Null, |a| a["address"].clone());
    let info = |field: &str| or(&status["nodeInfo"][field], UNKNOWN);
    vec![
        name(o),
        word.into(),
        roles.into(),
        age(o),
        status["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default().into(),
        or_none(&address("InternalIP")),
        or_none(&address("ExternalIP")),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

/// Serves events of both groups: fields are looked for under both names.
pub(super) fn event(o: &Value) -> Vec<Value> {
    let either = |new: &str, old: &str| if o[new].is_null() { o[old].clone() } else { o[new].clone() };
    let subject = either("regarding", "involvedObject");
    let first = either("deprecatedFirstTimestamp", "firstTimestamp");
    let first = if moment(&first).is_some() { since(&first) } else { since(&o["eventTime"]) };
    let last = [o["series"]["lastObservedTime"].clone(), either("deprecatedLastTimestamp", "lastTimestamp")]
        .iter()
        .find(|time| moment(time).is_some())
        .map_or_else(|| first.clone(), since);
    let times = [&o["series"]["count"], &o["deprecatedCount"], &o["count"]].into_iter().map(number).find(|n| *n > 0).unwrap_or(1);
    let kind = subject["kind"].as_str().unwrap_or_default().to_lowercase();
    let target = match subject["name"].as_str().filter(|n| !n.is_empty()) {
        Some(name) => format!("{kind}/{name}"),
        None => kind,
    };
    let source = either("deprecatedSource", "source");
    let component = source["component"]
        .as_str()
        .filter(|c| !c.is_empty())
        .or_else(|| o["reportingController"].as_str())
        .or_else(|| o["reportingComponent"].as_str())
        .unwrap_or_default();
    let host = source["host"].as_str().filter(|h| !h.is_empty()).or_else(|| o["reportingInstance"].as_str()).unwrap_or_default();
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        last.into(),
        o["type"].as_str().unwrap_or_default().into(),
        o["reason"].as_str().unwrap_or_default().into(),
        target.into(),
        subject["fieldPath"].as_str().unwrap_or_default().into(),
        source.into(),
        either("note", "message").as_str().unwrap_or_default().trim().into(),
        first.into(),
        times.into(),
        name(o),
    ]
}

/// `ReadWriteOnce` is printed `RWO`.
fn access_modes(modes: &Value) -> Value {
    let short = |mode: &str| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    list(modes).filter_map(Value::as_str).map(short).collect::<Vec<_>>().join(",").into()
}

pub(super) fn claim(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let phase = if o["metadata"]["deletionTimestamp"].is_string() { "Terminating" } else { status["phase"].as_str().unwrap_or_default() };
    vec![
        name(o),
        phase.into(),
        spec["volumeName"].as_str().unwrap_or_default().into(),
        status["capacity"]["storage"].as_str().unwrap_or_default().into(),
        access_modes(&status["accessModes"]),
        spec["storageClassName"].as_str().unwrap_or_default().into(),
        or(&spec["volumeAttributesClassName"], "<unset>"),
        age(o),
        or(&spec["volumeMode"], "<unset>"),
    ]
}

pub(super) fn volume(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let claim = &spec["claimRef"];
    let claim = match claim["name"].as_str() {
        Some(name) => format!("{}/{name}", claim["namespace"].as_str().unwrap_or_default()),
        None => String::new(),
    };
    vec![
        name(o),
        spec["capacity"]["storage"].as_str().unwrap_or_default().into(),
        access_modes(&spec["accessModes"]),
        spec["persistentVolumeReclaimPolicy"].as_str().unwrap_or_default().into(),
        status["phase"].as_str().unwrap_or_default().into(),
        claim.into(),
        spec["storageClassName"].as_str().unwrap_or_default().into(),
        or(&spec["volumeAttributesClassName"], "<unset>"),
        status["reason"].as_str().unwrap_or_default().into(),
        age(o),
        or(&spec["volumeMode"], "<unset>"),
    ]
}

pub(super) fn quota(o: &Value) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in o["status"]["hard"].as_object().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or("0").to_owned();
        let line = format!("{resource}: {}/{}", text(&o["status"]["used"][resource.as_str()]), text(hard));
        if resource.starts_with("limits.") { limits.push(line) } else { requests.push(line) }
    }
    vec![name(o), requests.join(", ").into(), limits.join(", ").into(), age(o)]
}

pub(super) fn role_binding(o: &Value) -> Vec<Value> {
    let role = &o["roleRef"];
    let role = format!("{}/{}", role["kind"].as_str().unwrap_or_default(), role["name"].as_str().unwrap_or_default());
    let subjects = |kind: &str| {
        let named = list(&o["subjects"]).filter(|s| s["kind"] == kind).map(|s| {
            let name = s["name"].as_str().unwrap_or_default();
            if kind == "ServiceAccount" { format!("{}/{name}", s["namespace"].as_str().unwrap_or_default()) } else { name.to_owned() }
        });
        Value::from(named.collect::<Vec<_>>().join(", "))
    };
    vec![name(o), role.into(), age(o), subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}

pub(super) fn priority_class(o: &Value) -> Vec<Value> {
    vec![
        name(o),
        number(&o["value"]).into(),
        Value::Bool(o["globalDefault"] == true),
        age(o),
        o["preemptionPolicy"].as_str().unwrap_or_default().into(),
    ]
}

pub(super) fn storage_class(o: &Value) -> Vec<Value> {
    let is_default = o["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true";
    let shown = format!("{}{}", o["metadata"]["name"].as_str().unwrap_or_default(), if is_default { " (default)" } else { "" });
    vec![
        shown.into(),
        o["provisioner"].as_str().unwrap_or_default().into(),
        o["reclaimPolicy"].as_str().unwrap_or_default().into(),
        o["volumeBindingMode"].as_str().unwrap_or_default().into(),
        Value::Bool(o["allowVolumeExpansion"] == true),
        age(o),
    ]
}
