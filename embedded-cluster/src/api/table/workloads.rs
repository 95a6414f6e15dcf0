//! Rows of what owns and guards pods.

use serde_json::Value;

use super::text::{NONE, UNKNOWN, age, count, human, labels, list, moment, name, number, or_none, selector, since};

fn containers(spec: &Value, field: &str) -> Value {
    let all: Vec<&str> = list(&spec["template"]["spec"]["containers"]).filter_map(|c| c[field].as_str()).collect();
    all.join(",").into()
}

pub(super) fn deployment(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    vec![
        name(o),
        format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"])).into(),
        number(&status["updatedReplicas"]).into(),
        number(&status["availableReplicas"]).into(),
        age(o),
        containers(spec, "name"),
        containers(spec, "image"),
        selector(&spec["selector"]).into(),
    ]
}

pub(super) fn replica_set(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    vec![
        name(o),
        number(&spec["replicas"]).into(),
        number(&status["replicas"]).into(),
        number(&status["readyReplicas"]).into(),
        age(o),
        containers(spec, "name"),
        containers(spec, "image"),
        selector(&spec["selector"]).into(),
    ]
}

pub(super) fn controller_revision(o: &Value) -> Vec<Value> {
    let owner = list(&o["metadata"]["ownerReferences"]).find(|owner| owner["controller"] == true);
    let controller = owner.map_or_else(
        || NONE.to_owned(),
        |owner| {
            let group = owner["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
            let kind = owner["kind"].as_str().unwrap_or_default().to_lowercase();
            format!("{kind}.{group}/{}", owner["name"].as_str().unwrap_or_default())
        },
    );
    vec![name(o), controller.into(), number(&o["revision"]).into(), age(o)]
}

pub(super) fn stateful_set(o: &Value) -> Vec<Value> {
    let ready = format!("{}/{}", number(&o["status"]["readyReplicas"]), number(&o["spec"]["replicas"]));
    vec![name(o), ready.into(), age(o), containers(&o["spec"], "name"), containers(&o["spec"], "image")]
}

pub(super) fn daemon_set(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    vec![
        name(o),
        number(&status["desiredNumberScheduled"]).into(),
        number(&status["currentNumberScheduled"]).into(),
        number(&status["numberReady"]).into(),
        number(&status["updatedNumberScheduled"]).into(),
        number(&status["numberAvailable"]).into(),
        labels(&spec["template"]["spec"]["nodeSelector"]).into(),
        age(o),
        containers(spec, "name"),
        containers(spec, "image"),
        selector(&spec["selector"]).into(),
    ]
}

pub(super) fn job(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let has = |wanted: &str| list(&status["conditions"]).any(|c| c["type"] == wanted && c["status"] == "True");
    let word = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if o["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let succeeded = number(&status["succeeded"]);
    let completions = match (spec["completions"].as_i64(), number(&spec["parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = match (moment(&status["startTime"]), moment(&status["completionTime"])) {
        (None, _) => String::new(),
        (Some(_), None) => since(&status["startTime"]),
        (Some(start), Some(end)) => human(end.as_second() - start.as_second()),
    };
    vec![
        name(o),
        word.into(),
        completions.into(),
        duration.into(),
        age(o),
        containers(spec, "name"),
        containers(spec, "image"),
        selector(&spec["selector"]).into(),
    ]
}

pub(super) fn cron_job(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let last = if status["lastScheduleTime"].is_string() { since(&status["lastScheduleTime"]) } else { NONE.to_owned() };
    let job = &spec["jobTemplate"]["spec"];
    vec![
        name(o),
        spec["schedule"].as_str().unwrap_or_default().into(),
        or_none(&spec["timeZone"]),
        if spec["suspend"] == true { "True" } else { "False" }.into(),
        count(&status["active"]).into(),
        last.into(),
        age(o),
        containers(job, "name"),
        containers(job, "image"),
        selector(&job["selector"]).into(),
    ]
}

pub(super) fn autoscaler(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let target = &spec["scaleTargetRef"];
    let reference = format!("{}/{}", target["kind"].as_str().unwrap_or_default(), target["name"].as_str().unwrap_or_default());
    let mut targets: Vec<String> = list(&spec["metrics"])
        .map(|metric| {
            let resource = &metric["resource"];
            let wanted = resource["target"]["averageUtilization"]
                .as_i64()
                .map(|percent| format!("{percent}%"))
                .or_else(|| resource["target"]["averageValue"].as_str().map(str::to_owned))
                .unwrap_or_else(|| UNKNOWN.to_owned());
            let label = resource["name"].as_str().map(|n| format!("{n}: ")).unwrap_or_default();
            format!("{label}{UNKNOWN}/{wanted}")
        })
        .collect();
    // Of autoscaling/v1.
    if let Some(percent) = spec["targetCPUUtilizationPercentage"].as_i64() {
        targets.insert(0, format!("cpu: {UNKNOWN}/{percent}%"));
    }
    if targets.is_empty() {
        targets.push(NONE.to_owned());
    }
    vec![
        name(o),
        reference.into(),
        targets.join(", ").into(),
        spec["minReplicas"].as_i64().map_or_else(|| "<unset>".to_owned(), |n| n.to_string()).into(),
        number(&spec["maxReplicas"]).into(),
        number(&status["currentReplicas"]).into(),
        age(o),
    ]
}

pub(super) fn disruption_budget(o: &Value) -> Vec<Value> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "N/A".to_owned(),
    };
    vec![
        name(o),
        text(&o["spec"]["minAvailable"]).into(),
        text(&o["spec"]["maxUnavailable"]).into(),
        number(&o["status"]["disruptionsAllowed"]).into(),
        age(o),
    ]
}
