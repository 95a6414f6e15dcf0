//! The lab's agent in a pod whose image is not the lab's.

use serde_json::{Value, json};

use super::guest::{COPY, FOLDER};

const VOLUME: &str = "gatelab";
const LAB_IMAGE: &str = "gatelab/lab:dev";

/// Has the containers of a pod's `spec` find the lab's program at `/gatelab`, as in the lab's own images.
pub fn carry_agent(spec: &mut Value) {
    let moving_in = json!({
        "name": "agent", "image": LAB_IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["/gatelab", "guest", "move-in", FOLDER],
        "volumeMounts": [{ "name": VOLUME, "mountPath": FOLDER }],
    });
    push(spec, "initContainers", moving_in);
    push(spec, "volumes", json!({ "name": VOLUME, "emptyDir": {} }));
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        push(container, "volumeMounts", json!({ "name": VOLUME, "mountPath": FOLDER, "readOnly": true }));
        push(container, "volumeMounts", json!({ "name": VOLUME, "mountPath": "/gatelab", "subPath": COPY, "readOnly": true }));
        // A gateway that knows better says so; some images name a user that may not listen on ports 80 and 443; the lab's own images have none either.
        if container["securityContext"]["runAsUser"].is_null() {
            container["securityContext"]["runAsUser"] = 0.into();
            container["securityContext"]["runAsGroup"] = 0.into();
        }
    }
}

/// The same for the gateway's Deployment among the manifests that install it.
pub fn carry_agent_of_gateway(manifests: &mut [Value]) {
    for deployment in manifests.iter_mut().filter(|manifest| manifest["kind"] == "Deployment") {
        carry_agent(&mut deployment["spec"]["template"]["spec"]);
    }
}

fn push(object: &mut Value, key: &str, item: Value) {
    match object[key].as_array_mut() {
        Some(list) => list.push(item),
        None => object[key] = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use gateways::GatewayInstall;
    use k8s_openapi::api::apps::v1::Deployment;

    use super::*;

    #[test]
    fn the_gateway_s_container_has_the_lab_s_program_where_the_lab_calls_it() {
        let install = GatewayInstall {
            image: "registry.example/nginx:test".into(),
            agent_arguments: vec!["--binary".into(), "/usr/sbin/nginx".into()],
            settings: "{}".into(),
            replicas: 1,
            node_selector: std::collections::BTreeMap::new(),
            node_ports: None,
            service_annotations: std::collections::BTreeMap::new(),
        };
        let mut manifests = gateways::manifests("nginx".parse().unwrap(), &install);
        let others: Vec<Value> = manifests.iter().filter(|manifest| manifest["kind"] != "Deployment").cloned().collect();
        carry_agent_of_gateway(&mut manifests);
        assert!(others.iter().all(|other| manifests.contains(other)), "nothing else is touched");
        let deployment = manifests.into_iter().find(|manifest| manifest["kind"] == "Deployment").unwrap();
        let deployment: Deployment = serde_json::from_value(deployment).unwrap();
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        let moving_in = &pod.init_containers.unwrap()[0];
        assert_eq!(moving_in.image.as_deref(), Some("gatelab/lab:dev"));
        let container = &pod.containers[0];
        assert_eq!(container.image.as_deref(), Some("registry.example/nginx:test"));
        let mounts = container.volume_mounts.clone().unwrap();
        let program = mounts.iter().find(|mount| mount.mount_path == "/gatelab").unwrap();
        assert_eq!((program.name.as_str(), program.sub_path.as_deref()), ("gatelab", Some("gatelab")));
        assert!(mounts.iter().any(|mount| mount.mount_path == FOLDER && mount.sub_path.is_none()));
        assert_eq!(container.command.clone().unwrap()[0], "/gatelab");
        assert_eq!(container.security_context.as_ref().unwrap().run_as_user, Some(0));
        assert_eq!(pod.volumes.unwrap()[0].name, "gatelab");
        let mut own = gateways::manifests("ingress-nginx".parse().unwrap(), &install);
        carry_agent_of_gateway(&mut own);
        let deployment = own.into_iter().find(|manifest| manifest["kind"] == "Deployment").unwrap();
        assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["runAsUser"], 101);
    }
}
