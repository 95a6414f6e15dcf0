//! Deployments and the other owners of pods.

use serde_json::{Value, json};

use super::{pods, present, set, set_text};

/// Go has no template without metadata and spec.
fn template(spec: &mut Value) {
    set(spec, "template", || json!({}));
    let Some(template) = present(spec, "template") else { return };
    set(template, "metadata", || json!({}));
    set(template, "spec", || json!({}));
    if let Some(pod) = present(template, "spec") {
        pods::spec(pod);
    }
}

pub(super) fn deployment(object: &mut Value) {
    let Some(spec) = present(object, "spec") else { return };
    set(spec, "replicas", || 1.into());
    set(spec, "revisionHistoryLimit", || 10.into());
    set(spec, "progressDeadlineSeconds", || 600.into());
    set(spec, "strategy", || json!({}));
    let strategy = &mut spec["strategy"];
    set_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", || json!({}));
        set(&mut strategy["rollingUpdate"], "maxUnavailable", || "25%".into());
        set(&mut strategy["rollingUpdate"], "maxSurge", || "25%".into());
    }
    template(spec);
}

pub(super) fn replica_set(object: &mut Value) {
    let Some(spec) = present(object, "spec") else { return };
    set(spec, "replicas", || 1.into());
    template(spec);
}

pub(super) fn stateful_set(object: &mut Value) {
    let Some(spec) = present(object, "spec") else { return };
    set(spec, "replicas", || 1.into());
    set(spec, "revisionHistoryLimit", || 10.into());
    set_text(spec, "podManagementPolicy", "OrderedReady");
    set(spec, "persistentVolumeClaimRetentionPolicy", || json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    set(spec, "updateStrategy", || json!({}));
    let strategy = &mut spec["updateStrategy"];
    set_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", || json!({}));
        set(&mut strategy["rollingUpdate"], "partition", || 0.into());
    }
    template(spec);
}

pub(super) fn daemon_set(object: &mut Value) {
    let Some(spec) = present(object, "spec") else { return };
    set(spec, "revisionHistoryLimit", || 10.into());
    set(spec, "updateStrategy", || json!({}));
    let strategy = &mut spec["updateStrategy"];
    set_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", || json!({}));
        set(&mut strategy["rollingUpdate"], "maxUnavailable", || 1.into());
        set(&mut strategy["rollingUpdate"], "maxSurge", || 0.into());
    }
    template(spec);
}

pub(super) fn job(object: &mut Value) {
    let Some(spec) = present(object, "spec") else { return };
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    set(spec, "parallelism", || 1.into());
    set(spec, "backoffLimit", || 6.into());
    set_text(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", || false.into());
    set_text(spec, "podReplacementPolicy", "TerminatingOrFailed");
    set(spec, "manualSelector", || false.into());
    template(spec);
    let labels = spec["template"]["metadata"]["labels"].clone();
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        set(&mut object["metadata"], "labels", || labels);
    }
}

pub(super) fn cron_job(object: &mut Value) {
    let Some(spec) = present(object, "spec") else { return };
    set_text(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", || false.into());
    set(spec, "successfulJobsHistoryLimit", || 3.into());
    set(spec, "failedJobsHistoryLimit", || 1.into());
    if let Some(job) = present(spec, "jobTemplate") {
        set(job, "metadata", || json!({}));
        if let Some(job) = present(job, "spec") {
            template(job);
        }
    }
    set(object, "status", || json!({}));
}
