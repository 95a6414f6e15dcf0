use super::{annotations, config::Layout, defaults, log, process::HaproxyGateway};
use crate::{
    EffectiveSettings,
    adapter::{Adapter, Banner, Facts, Start},
    agent::Gateway,
    fetch::{Fetch, FetchError, GatewayBuild, debian},
    log::{Fields, LogLine, ReadLine},
    settings::{Annotations, Overrides, ServicePort, SnippetForm::Lines, SnippetPlace},
};

const PACKAGE: debian::Package = debian::Package { binary: "usr/sbin/haproxy", names: &["haproxy"] };

const FACTS: Facts = Facts {
    name: "haproxy",
    product: "HAProxy",
    follows: "HAProxy Ingress",
    program: "haproxy",
    // `HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/`; bc_err_str and ssl_bc_err_str came with 2.5.
    banner: Banner { argument: "-v", read: |text| text.split_once("HAProxy version ")?.1.split([' ', '-', '+']).next(), least: (2, 5, 0) },
    package_client: "apt",
    // Lines put in as they are, by section.
    snippets: &[
        SnippetPlace { name: "global", form: Lines },
        SnippetPlace { name: "defaults", form: Lines },
        SnippetPlace { name: "backend", form: Lines },
    ],
    vocabulary: log::VOCABULARY,
};

/// HAProxy, as HAProxy Ingress runs it.
pub(crate) struct Haproxy;

impl Adapter for Haproxy {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn fetch(&self, fetch: &Fetch) -> Result<GatewayBuild, FetchError> {
        fetch.debian(&PACKAGE)
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

    fn redirects_to_https(&self, annotations: &Annotations, has_certificate: bool) -> bool {
        annotations::redirects_to_https(annotations, has_certificate)
    }

    fn start(&self, start: Start) -> Box<dyn Gateway> {
        let layout = Layout {
            state: start.state,
            http_port: start.http_port,
            https_port: start.https_port,
            open_files: start.open_files,
            name_servers: start.name_servers,
            log: "stdout".to_owned(),
        };
        Box::new(HaproxyGateway::new(start.binary, layout))
    }

    fn read_log(&self, lines: &[LogLine<'_>]) -> Vec<Option<ReadLine>> {
        lines.iter().map(log::read).collect()
    }

    fn mark(&self, fields: &Fields) -> Option<String> {
        log::mark(fields)
    }

    fn mark_of_seen(&self, fields: &Fields) -> Option<String> {
        log::mark_of_seen(fields)
    }

    #[cfg(test)]
    fn bench(&self) -> crate::adapter::BenchFacts {
        crate::adapter::BenchFacts {
            missing_service: 404,
            plain_http: 302,
            untrusted: 503,
            untrusted_told: "",
            refused: &["{snippets: {haproxy: {backend: 'no_such_keyword on'}}}"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_the_binary_says_it() {
        let read = FACTS.banner.read;
        assert_eq!(read("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n"), Some("2.6.12"));
        assert_eq!(read("nginx version: nginx/1.18.0 (Ubuntu)\n"), None);
    }
}
