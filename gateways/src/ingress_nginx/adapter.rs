use serde_json::{Value, json};

use super::{arguments::Layout, config_map, process::IngressNginxGateway};
use crate::{
    EffectiveSettings,
    adapter::{Adapter, Banner, Facts, Start},
    agent::Gateway,
    fetch::{Fetch, FetchError, GatewayBuild},
    log::{Fields, LogLine, ReadLine},
    manifests::GATEWAY_NAMESPACE,
    nginx,
    settings::{Annotations, Overrides, SnippetForm::Lines, SnippetPlace},
};

const FACTS: Facts = Facts {
    name: "ingress-nginx",
    product: "ingress-nginx",
    follows: "ingress-nginx",
    // Where its image has it (rootfs/Dockerfile), in no folder of any PATH.
    program: "/nginx-ingress-controller",
    // `  Release:       v1.11.3`; Ingresses of networking.k8s.io/v1 came with 1.0.
    banner: Banner {
        argument: "--version",
        read: |text| text.split_once("Release:")?.1.split_whitespace().next()?.strip_prefix('v'),
        least: (1, 0, 0),
    },
    package_client: "none",
    // Keys of its ConfigMap, such as `http-snippet`.
    snippets: &[
        SnippetPlace { name: "main", form: Lines },
        SnippetPlace { name: "http", form: Lines },
        SnippetPlace { name: "server", form: Lines },
        SnippetPlace { name: "location", form: Lines },
    ],
    vocabulary: nginx::VOCABULARY,
};

/// ingress-nginx' own controller.
pub(crate) struct IngressNginx;

impl Adapter for IngressNginx {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn image(&self) -> Option<&'static str> {
        Some("registry.k8s.io/ingress-nginx/controller:v1.11.3")
    }

    fn configures_itself(&self) -> bool {
        true
    }

    fn controller(&self) -> &'static str {
        "k8s.io/ingress-nginx"
    }

    /// ClusterRole `ingress-nginx` of its manifests (deploy/static/provider/cloud/deploy.yaml), without what the agent reads anyway. The
    /// ConfigMaps are those of all namespaces, since annotations may name one.
    fn cluster_rules(&self) -> Vec<Value> {
        vec![
            json!({ "apiGroups": [""], "resources": ["configmaps", "endpoints", "nodes", "pods", "namespaces"], "verbs": ["list", "watch"] }),
            json!({ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get"] }),
            json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list", "watch"] }),
            json!({ "apiGroups": [""], "resources": ["events"], "verbs": ["patch"] }),
            json!({ "apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update"] }),
        ]
    }

    /// Role `ingress-nginx` of its manifests, and for the agent the one ConfigMap that it writes.
    fn namespace_rules(&self) -> Vec<Value> {
        let group = "coordination.k8s.io";
        vec![
            json!({ "apiGroups": [""], "resources": ["pods", "endpoints"], "verbs": ["get", "list", "watch"] }),
            json!({ "apiGroups": [group], "resources": ["leases"], "resourceNames": [super::arguments::ELECTION], "verbs": ["get", "update"] }),
            json!({ "apiGroups": [group], "resources": ["leases"], "verbs": ["create"] }),
            json!({ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [config_map::NAME], "verbs": ["patch"] }),
        ]
    }

    /// Its ConfigMap, which has to be there when it starts.
    fn objects(&self) -> Vec<Value> {
        vec![json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": config_map::NAME, "namespace": GATEWAY_NAMESPACE } })]
    }

    /// As in its manifests, but for `allowPrivilegeEscalation`: nginx gets the capability from its file (`setcap` in rootfs/Dockerfile),
    /// and without escalation only a parent that has it can pass it on, which the agent's file has not.
    fn security_context(&self) -> Option<Value> {
        Some(json!({
            "runAsUser": 101, "runAsNonRoot": true, "allowPrivilegeEscalation": true,
            "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        }))
    }

    fn fetch(&self, fetch: &Fetch) -> Result<GatewayBuild, FetchError> {
        Err(fetch.only_an_image())
    }

    fn defaults(&self) -> EffectiveSettings {
        nginx::defaults()
    }

    fn ingress_annotations(&self, annotations: &Annotations, overrides: &mut Overrides) {
        nginx::annotations_of_ingress(annotations, overrides);
    }

    fn redirects_to_https(&self, annotations: &Annotations, has_certificate: bool) -> bool {
        nginx::redirects_to_https(annotations, has_certificate)
    }

    fn start(&self, start: Start) -> Box<dyn Gateway> {
        let layout = Layout { http_port: start.http_port, https_port: start.https_port };
        Box::new(IngressNginxGateway::new(start.binary, layout))
    }

    fn read_log(&self, lines: &[LogLine<'_>]) -> Vec<Option<ReadLine>> {
        nginx::read_log(lines)
    }

    fn mark(&self, fields: &Fields) -> Option<String> {
        nginx::mark(fields)
    }

    fn mark_of_seen(&self, fields: &Fields) -> Option<String> {
        nginx::mark_of_seen(fields)
    }

    /// Never asked: without a cluster there is nothing for it to follow.
    #[cfg(test)]
    fn bench(&self) -> crate::adapter::BenchFacts {
        crate::adapter::BenchFacts { missing_service: 503, plain_http: 308, untrusted: 502, untrusted_told: "", refused: &[] }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{GatewayInstall, ingress_nginx::KIND};

    /// Least privilege: nothing is written but Events, statuses of Ingresses, the lease of its election, and one ConfigMap.
    #[test]
    fn it_may_write_what_its_manifests_let_it_write() {
        let install = GatewayInstall {
            image: "registry.example/controller:1".to_owned(),
            agent_arguments: Vec::new(),
            settings: String::new(),
            replicas: 1,
            node_selector: BTreeMap::new(),
            node_ports: None,
            service_annotations: BTreeMap::new(),
        };
        let manifests = crate::manifests(KIND, &install);
        let rules = manifests.iter().flat_map(|manifest| manifest["rules"].as_array().into_iter().flatten());
        let mut written: Vec<String> = rules
            .filter(|rule| rule["verbs"].as_array().unwrap().iter().any(|verb| !["get", "list", "watch"].contains(&verb.as_str().unwrap())))
            .map(|rule| format!("{} {} {}", rule["resources"], rule["resourceNames"], rule["verbs"]).replace('"', ""))
            .collect();
        written.sort();
        insta::assert_snapshot!(written.join("\n"), @r"
        [configmaps] [ingress-nginx-controller] [patch]
        [events] null [create]
        [events] null [patch]
        [ingresses/status] null [update]
        [leases] [ingress-nginx-leader] [get,update]
        [leases] null [create]
        ");
        let find = |kind: &str, name: &str| {
            manifests.iter().find(|manifest| manifest["kind"] == kind && manifest["metadata"]["name"] == name).unwrap().clone()
        };
        find("ConfigMap", "ingress-nginx-controller");
        assert_eq!(find("IngressClass", "gateway")["spec"]["controller"], "k8s.io/ingress-nginx");
        let context = &find("Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]["securityContext"];
        assert_eq!((&context["runAsUser"], &context["capabilities"]["drop"][0]), (&json!(101), &json!("ALL")));
    }

    #[test]
    fn the_version_is_read_as_the_controller_says_it() {
        let read = FACTS.banner.read;
        let text = "----\nNGINX Ingress controller\n  Release:       v1.11.0-20240708-gatelab\n  Build:         52c5\n";
        assert_eq!(read(text), Some("1.11.0-20240708-gatelab"));
        assert_eq!(read("nginx version: nginx/1.22.1"), None);
    }
}
