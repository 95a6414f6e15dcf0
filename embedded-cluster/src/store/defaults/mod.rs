//! Defaults that kube-apiserver writes into objects when they are stored (`zz_generated.defaults.go` and the kinds'
//! creation strategies). Applying them twice changes nothing.

mod network;
mod others;
mod pods;
mod workloads;

use serde_json::Value;

use super::Resource;
use super::quantities::canonicalize;

/// Completes an object of a built-in kind; others are left alone.
pub(crate) fn apply(resource: &Resource, object: &mut Value) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => pods::pod(object),
        ("", "services") => network::service(object),
        ("", "endpoints") => network::endpoints(object),
        ("", "namespaces") => others::namespace(object),
        ("", "secrets") => others::secret(object),
        ("", "nodes") => set(object, "spec", || serde_json::json!({})),
        ("", "persistentvolumeclaims") => {
            others::claim(object);
            if let Some(resources) = present(object, "spec").and_then(|spec| present(spec, "resources")) {
                canonicalize(resources, "requests");
            }
        }
        ("", "resourcequotas") => {
            if let Some(spec) = present(object, "spec") {
                canonicalize(spec, "hard");
            }
        }
        ("", "limitranges") => others::limit_range(object),
        ("apps", "deployments") => workloads::deployment(object),
        ("apps", "replicasets") => workloads::replica_set(object),
        ("apps", "statefulsets") => workloads::stateful_set(object),
        ("apps", "daemonsets") => workloads::daemon_set(object),
        ("batch", "jobs") => workloads::job(object),
        ("batch", "cronjobs") => workloads::cron_job(object),
        ("autoscaling", "horizontalpodautoscalers") => {
            set(&mut object["spec"], "minReplicas", || 1.into());
            let cpu = serde_json::json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
            set(&mut object["spec"], "metrics", || serde_json::json!([{"type": "Resource", "resource": cpu}]));
            set(object, "status", || serde_json::json!({"currentMetrics": null, "desiredReplicas": 0}));
        }
        ("discovery.k8s.io", "endpointslices") => network::endpoint_slice(object),
        ("networking.k8s.io", "networkpolicies") => network::network_policy(object),
        ("networking.k8s.io", "ingresses") => network::ingress(object),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => others::role_binding(object),
        ("storage.k8s.io", "storageclasses") => others::storage_class(object),
        ("scheduling.k8s.io", "priorityclasses") => set(object, "preemptionPolicy", || "PreemptLowerPriority".into()),
        ("apiextensions.k8s.io", "customresourcedefinitions") => others::custom_resource_definition(object),
        _ => {}
    }
}

/// Sets a field that is absent or null. Whatever is no object stays as it is, for validation to refuse.
fn set(object: &mut Value, field: &str, value: impl FnOnce() -> Value) {
    if object.is_null() {
        *object = serde_json::json!({});
    }
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(Value::is_null)
    {
        map.insert(field.to_owned(), value());
    }
}

/// As [`set`], for texts where the empty one means absent.
fn set_text(object: &mut Value, field: &str, text: &str) {
    if object.get(field).is_some_and(|value| value == "") {
        object[field] = Value::Null;
    }
    set(object, field, || text.into());
}

/// The items of a list field, none when it is absent.
fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter(|item| item.is_object())
}

/// A field that is there as an object.
fn present<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    object.get_mut(field).filter(|value| value.is_object())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, core::v1::Service};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_minimal_deployment_is_completed_as_by_kube_apiserver() {
        let mut object = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [
            {"name": "c", "image": "nginx", "resources": {"limits": {"memory": "64Mi"}}, "ports": [{"containerPort": 80}], "readinessProbe": {"httpGet": {"port": 80}}}]}}}});
        apply(&Resource::of::<Deployment>(), &mut object);
        let spec = &object["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(spec["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}));
        assert_eq!((&spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]), (&json!(10), &json!(600)));
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Always");
        assert_eq!(pod["terminationGracePeriodSeconds"], 30);
        assert!(pod.get("enableServiceLinks").is_none(), "a pod's own default, not its template's");
        let container = &pod["containers"][0];
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["resources"], json!({"limits": {"memory": "64Mi"}}), "requests come with the pod");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(
            container["readinessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
        );
    }

    #[test]
    fn defaults_are_idempotent_and_keep_what_is_given() {
        let mut pod = json!({"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "a:1", "resources": {"limits": {"cpu": "1"}}}], "volumes": [{"name": "v"}]}});
        apply(&Resource::of::<Pod>(), &mut pod);
        let once = pod.clone();
        apply(&Resource::of::<Pod>(), &mut pod);
        assert_eq!(pod, once);
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 0);
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1");
        assert_eq!(pod["spec"]["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Burstable"}));
    }

    #[test]
    fn service_ports_target_themselves() {
        let mut service = json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}});
        apply(&Resource::of::<Service>(), &mut service);
        assert_eq!(
            service["spec"]["ports"],
            json!([{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}])
        );
        assert_eq!(service["spec"]["type"], "ClusterIP");
    }

    #[test]
    fn objects_of_the_wrong_shape_are_left_for_validation() {
        for mut object in [json!({"spec": 1}), json!({"spec": {"containers": "x", "ports": [1], "template": []}}), json!({})] {
            for resource in crate::api::served_resources() {
                apply(&resource, &mut object);
            }
        }
    }
}
