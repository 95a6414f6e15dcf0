//! What kube-apiserver adds to new objects from what else there is: admission plugins and creation strategies whose
//! result controllers' own objects need as much as those of clients.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Resource;
use super::objects::{Fault, Reason};

/// Labels of a Job's pods; the short ones are older.
const CONTROLLER_UID: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const JOB_NAME: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// Plugins ServiceAccount and Priority.
pub(super) fn pod(pod: &mut Value, classes: &[Arc<Value>]) -> Result<(), Fault> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let Some(spec) = pod["spec"].as_object_mut() else { return Ok(()) };
    let text = |spec: &serde_json::Map<String, Value>, field: &str| {
        spec.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let account = text(spec, "serviceAccountName").unwrap_or_else(|| "default".to_owned());
    spec.insert("serviceAccount".to_owned(), account.clone().into());
    spec.insert("serviceAccountName".to_owned(), account.into());
    let class = match text(spec, "priorityClassName") {
        Some(wanted) => match classes.iter().find(|class| class["metadata"]["name"] == wanted.as_str()) {
            Some(class) => Some(class),
            None => {
                let message = format!("pods \"{name}\" is forbidden: no PriorityClass with name {wanted} was found");
                return Err(Fault::new(Reason::Forbidden, message));
            }
        },
        None => classes.iter().filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64()),
    };
    if let Some(class) = class {
        spec.insert("priorityClassName".to_owned(), class["metadata"]["name"].clone());
        spec.insert("priority".to_owned(), class["value"].clone());
        if let Some(policy) = class.get("preemptionPolicy").filter(|policy| !policy.is_null()) {
            spec.insert("preemptionPolicy".to_owned(), policy.clone());
        }
    }
    Ok(())
}

/// What needs the object's uid: a Job without a selector of its own selects its pods by it (`generateSelector`).
pub(super) fn with_identity(resource: &Resource, object: &mut Value) {
    if resource.group != "batch" || resource.plural != "jobs" || object["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (object["metadata"]["uid"].clone(), object["metadata"]["name"].clone());
    if !object["spec"].is_object() {
        return;
    }
    let template = &mut object["spec"]["template"];
    for (labels, value) in [(CONTROLLER_UID, uid.clone()), (JOB_NAME, name)] {
        for label in labels {
            if template["metadata"]["labels"].get(label).is_none() {
                template["metadata"]["labels"][label] = value.clone();
            }
        }
    }
    if object["spec"]["selector"]["matchLabels"].get(CONTROLLER_UID[0]).is_none() {
        object["spec"]["selector"] = json!({"matchLabels": {CONTROLLER_UID[0]: uid}});
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;

    use super::*;

    #[test]
    fn a_pod_takes_the_priority_of_its_class() {
        let classes = [Arc::new(json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"}))];
        let mut known = json!({"metadata": {"name": "p"}, "spec": {"priorityClassName": "high", "priority": 0}});
        pod(&mut known, &classes).expect("admitted");
        assert_eq!((&known["spec"]["priority"], &known["spec"]["preemptionPolicy"]), (&json!(7), &json!("Never")));
        assert_eq!(known["spec"]["serviceAccountName"], "default");
        let mut unknown = json!({"metadata": {"name": "p"}, "spec": {"priorityClassName": "low"}});
        let fault = pod(&mut unknown, &classes).expect_err("refused");
        assert_eq!(fault.message, "pods \"p\" is forbidden: no PriorityClass with name low was found");
    }

    #[test]
    fn a_job_selects_its_pods_by_its_uid() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"metadata": {}, "spec": {}}}});
        with_identity(&Resource::of::<Job>(), &mut job);
        assert_eq!(job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u");
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
    }
}
