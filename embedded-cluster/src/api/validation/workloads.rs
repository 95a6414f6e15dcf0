//! What has a pod template.

use serde_json::Value;

use super::super::kinds::Kind;
use super::super::selector::LabelSelector;
use super::super::status::FieldError;
use super::super::subresources::selector_text;
use super::{Errors, immutable, is_absent, names, not_negative, pods, text};

pub(super) fn workload(kind: &Kind, next: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = &next["spec"];
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(&spec[field], &format!("spec.{field}"), errors);
    }
    let template_labels = &spec["template"]["metadata"]["labels"];
    if spec["selector"].is_null() {
        errors.push(FieldError::required("spec.selector", ""));
        // No selector is the empty one of Go's struct, and that matches nothing.
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", template_labels, detail));
    } else if is_absent(&spec["selector"]) {
        let detail = format!("empty selector is invalid for {}", kind.resource.kind.to_lowercase());
        errors.push(FieldError::invalid("spec.selector", &spec["selector"], &detail));
    } else {
        names::labels(&spec["selector"]["matchLabels"], "spec.selector.matchLabels", errors);
        let matches = LabelSelector::parse(&selector_text(&spec["selector"])).is_ok_and(|s| s.matches(&spec["template"]));
        if !matches {
            let detail = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid("spec.template.metadata.labels", template_labels, detail));
        }
    }
    names::labels(template_labels, "spec.template.metadata.labels", errors);
    template(&spec["template"], &["Always"], errors);
    if let Some(old) = old {
        immutable(&spec["selector"], &old["spec"]["selector"], "spec.selector", errors);
        if kind.is("apps", "statefulsets") {
            stateful_set_update(spec, &old["spec"], errors);
        }
    }
    if spec["strategy"]["type"] == "Recreate" && spec["strategy"]["rollingUpdate"].is_object() {
        let detail = "may not be specified when strategy `type` is 'Recreate'";
        errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
    }
    let rolling = &spec["strategy"]["rollingUpdate"];
    let zero = |value: &Value| *value == 0 || *value == "0%" || *value == "0";
    if rolling.is_object() && zero(&rolling["maxUnavailable"]) && zero(&rolling["maxSurge"]) {
        errors.push(FieldError::invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            &rolling["maxUnavailable"],
            "may not be 0 when `maxSurge` is 0",
        ));
    }
}

fn stateful_set_update(next: &Value, old: &Value, errors: &mut Errors) {
    let fixed = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(spec) = spec.as_object_mut() {
            for field in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
                "selector",
            ] {
                spec.remove(field);
            }
        }
        spec
    };
    if fixed(next) != fixed(old) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", detail));
    }
}

fn template(template: &Value, restart: &[&str], errors: &mut Errors) {
    pods::spec(&template["spec"], "spec.template.spec", errors);
    let policy = &template["spec"]["restartPolicy"];
    if !restart.contains(&text(policy)) {
        errors.push(FieldError::unsupported("spec.template.spec.restartPolicy", policy, restart));
    }
}

pub(super) fn job(next: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = &next["spec"];
    for field in ["parallelism", "completions", "backoffLimit"] {
        not_negative(&spec[field], &format!("spec.{field}"), errors);
    }
    template(&spec["template"], &["OnFailure", "Never"], errors);
    if let Some(old) = old {
        // How many there are may change for what is indexed only (`validateCompletions`).
        if spec["completionMode"] != "Indexed" {
            immutable(&spec["completions"], &old["spec"]["completions"], "spec.completions", errors);
        }
        immutable(&spec["selector"], &old["spec"]["selector"], "spec.selector", errors);
        immutable(&spec["template"], &old["spec"]["template"], "spec.template", errors);
    }
}

pub(super) fn cron_job(next: &Value, errors: &mut Errors) {
    let spec = &next["spec"];
    let schedule = text(&spec["schedule"]);
    if schedule.is_empty() {
        errors.push(FieldError::required("spec.schedule", ""));
    } else if let Err(detail) = crate::controllers::check_schedule(schedule) {
        errors.push(FieldError::invalid("spec.schedule", &spec["schedule"], &detail));
    }
    let pod = &spec["jobTemplate"]["spec"]["template"]["spec"];
    let at = "spec.jobTemplate.spec.template.spec";
    pods::spec(pod, at, errors);
    if !matches!(text(&pod["restartPolicy"]), "OnFailure" | "Never") {
        let detail = "valid values: \"OnFailure\", \"Never\"";
        errors.push(FieldError::required(format!("{at}.restartPolicy"), detail));
    }
}
