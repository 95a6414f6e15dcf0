//! What kube-apiserver adds to new objects from what else there is: admission plugins and creation strategies whose
//! result controllers' own objects need as much as those of clients.

use std::sync::Arc;

use rand::RngExt as _;
use serde_json::{Value, json};

use super::objects::{Fault, Reason};
use super::{Resource, defaults};

/// Labels of a Job's pods; the short ones are older.
const CONTROLLER_UID: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
/// Beginning of the name of the volume with a pod's credentials, and where containers find them.
const TOKEN_VOLUME: &str = "kube-api-access-";
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
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

/// Plugin ServiceAccount: credentials for the API in every container that has nothing of its own at their place. `accounts` are
/// those of the namespace.
pub(super) fn api_access(pod: &mut Value, accounts: &[Arc<Value>]) {
    let Some(spec) = pod["spec"].as_object_mut() else { return };
    let wanted = spec.get("serviceAccountName").and_then(Value::as_str).unwrap_or("default");
    let account = accounts.iter().find(|account| account["metadata"]["name"] == wanted);
    let own = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    if own.or_else(|| account?["automountServiceAccountToken"].as_bool()) == Some(false) {
        return;
    }
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let known = volumes.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(TOKEN_VOLUME)).map(str::to_owned);
    let is_new = known.is_none();
    let name = known.unwrap_or_else(|| format!("{TOKEN_VOLUME}{}", random_suffix()));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().filter(|item| item.is_object()) {
            if !container["volumeMounts"].is_array() {
                container["volumeMounts"] = json!([]);
            }
            let Some(mounts) = container["volumeMounts"].as_array_mut() else { continue };
            if !mounts.iter().any(|mount| mount["mountPath"] == TOKEN_FOLDER) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_FOLDER}));
                mounted = true;
            }
        }
    }
    if !mounted || !is_new {
        return;
    }
    let volume = json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    match spec.get_mut("volumes").and_then(Value::as_array_mut) {
        Some(volumes) => volumes.push(volume),
        None => drop(spec.insert("volumes".to_owned(), json!([volume]))),
    }
}

/// `names.SimpleNameGenerator`: five characters without vowels and look-alikes.
pub(crate) fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
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
    // As whenever a Job is read from etcd.
    defaults::apply(resource, object);
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
        assert_eq!(job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]);
    }

    #[test]
    fn a_pod_gets_the_credentials_of_its_account_unless_it_says_no() {
        let mounted = |spec: Value, accounts: &[Value]| {
            let accounts: Vec<Arc<Value>> = accounts.iter().cloned().map(Arc::new).collect();
            let mut object = json!({"metadata": {"name": "p"}, "spec": spec});
            api_access(&mut object, &accounts);
            object["spec"].take()
        };
        let spec = json!({"serviceAccountName": "default", "initContainers": [{"name": "i"}],
            "containers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": TOKEN_FOLDER}]}, {"name": "b"}]});
        let pod = mounted(spec.clone(), &[]);
        let volume = pod["volumes"][0]["name"].as_str().expect("a volume").to_owned();
        assert!(volume.starts_with("kube-api-access-") && volume.len() == "kube-api-access-".len() + 5, "{volume}");
        let own = json!([{"name": volume, "readOnly": true, "mountPath": TOKEN_FOLDER}]);
        assert_eq!((&pod["initContainers"][0]["volumeMounts"], &pod["containers"][1]["volumeMounts"]), (&own, &own));
        assert_eq!(pod["containers"][0]["volumeMounts"][0]["name"], "x", "a container's own mount stays");
        let again = mounted(pod.clone(), &[]);
        assert_eq!(again, pod, "a copy of a pod keeps the volume of the original");
        let account = json!({"metadata": {"name": "default"}, "automountServiceAccountToken": false});
        assert_eq!(mounted(spec.clone(), std::slice::from_ref(&account)), spec);
        let mut wants = spec.clone();
        wants["automountServiceAccountToken"] = true.into();
        assert!(mounted(wants, &[account])["volumes"].is_array());
        let mut refuses = spec;
        refuses["automountServiceAccountToken"] = false.into();
        assert!(mounted(refuses, &[])["volumes"].is_null());
    }
}
