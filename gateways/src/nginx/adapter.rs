use super::{annotations, config::Layout, defaults, log, process::NginxGateway};
use crate::{
    EffectiveSettings,
    adapter::{Adapter, Banner, Facts, Start},
    agent::Gateway,
    fetch::{Fetch, FetchError, GatewayBuild, debian, version},
    log::{Fields, LogLine, ReadLine},
    settings::{Annotations, Overrides, SnippetForm::Lines, SnippetPlace},
};

/// The package called `nginx` holds the binary on newer distributions; on older ones it is `nginx-core` or `nginx-light`.
const PACKAGE: debian::Package = debian::Package { binary: "usr/sbin/nginx", names: &["nginx", "nginx-core", "nginx-light"] };

const FACTS: Facts = Facts {
    name: "nginx",
    product: "nginx",
    follows: "ingress-nginx",
    program: "nginx",
    // `nginx version: nginx/1.22.1`; keepalive_requests and keepalive_timeout in upstreams came with 1.15.3.
    banner: Banner { argument: "-v", read: |text| text.split_once("nginx/")?.1.split_whitespace().next(), least: (1, 15, 3) },
    package_client: "apt",
    // Directives put in as they are, by context.
    snippets: &[
        SnippetPlace { name: "main", form: Lines },
        SnippetPlace { name: "http", form: Lines },
        SnippetPlace { name: "server", form: Lines },
        SnippetPlace { name: "location", form: Lines },
        SnippetPlace { name: "upstream", form: Lines },
    ],
    vocabulary: log::VOCABULARY,
};

/// nginx, as ingress-nginx runs it.
pub(crate) struct Nginx;

impl Adapter for Nginx {
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

    fn redirects_to_https(&self, annotations: &Annotations, has_certificate: bool) -> bool {
        annotations::redirects_to_https(annotations, has_certificate)
    }

    fn start(&self, start: Start) -> Box<dyn Gateway> {
        let layout = Layout {
            state: start.state,
            http_port: start.http_port,
            https_port: start.https_port,
            version: version::numbers(&start.version).unwrap_or_default(),
            root: nix::unistd::Uid::effective().is_root(),
            open_files: start.open_files,
            name_servers: start.name_servers,
        };
        Box::new(NginxGateway::new(start.binary, layout))
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

    #[cfg(test)]
    fn bench(&self) -> crate::adapter::BenchFacts {
        crate::adapter::BenchFacts {
            // ingress-nginx has a route without servers
            missing_service: 503,
            plain_http: 308,
            untrusted: 502,
            untrusted_told: "upstream SSL certificate",
            refused: &["{snippets: {nginx: {location: 'no_such_directive on;'}}}"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_the_binary_says_it() {
        assert_eq!((FACTS.banner.read)("nginx version: nginx/1.18.0 (Ubuntu)\n"), Some("1.18.0"));
        assert_eq!((FACTS.banner.read)("HAProxy version 2.6.12"), None);
    }
}
