//! All that the lab has to know of one gateway. Each gateway's folder implements it once, and `registry.rs` names it in one line.

use std::{net::IpAddr, path::PathBuf};

use serde_json::Value;

use crate::{
    EffectiveSettings,
    agent::{Binary, Gateway},
    fetch::{Fetch, FetchError, GatewayBuild},
    log::{Fields, LineKind, LogLine, ReadLine},
    settings::{Annotations, Overrides, ServicePort, SnippetPlace},
};

/// `spec.controller` of the IngressClass where the agent is the controller.
const AGENT: &str = "gatelab.dev/gateway-agent";

/// One gateway.
pub(crate) trait Adapter: Sync {
    fn facts(&self) -> &'static Facts;

    /// Whether it follows the Kubernetes API by itself. Then the agent writes no configuration for it, and the lab's own annotations mean
    /// nothing to it.
    fn configures_itself(&self) -> bool {
        false
    }

    /// `spec.controller` of its IngressClass.
    fn controller(&self) -> &'static str {
        AGENT
    }

    /// The image that it comes as, where there is no binary to find or fetch. Such a gateway runs in clusters of containers alone, and only
    /// when it is asked for.
    fn image(&self) -> Option<&'static str> {
        None
    }

    /// Objects of its own, beside those that every gateway has.
    fn objects(&self) -> Vec<Value> {
        Vec::new()
    }

    /// `securityContext` of its container; `None`: whatever the image says.
    fn security_context(&self) -> Option<Value> {
        None
    }

    /// What its ServiceAccount may do in its own namespace, beside what the agent reads.
    fn namespace_rules(&self) -> Vec<Value> {
        Vec::new()
    }

    /// What its ServiceAccount may do in the whole cluster, beside what the agent reads.
    fn cluster_rules(&self) -> Vec<Value> {
        Vec::new()
    }

    /// Puts it into the cache.
    fn fetch(&self, fetch: &Fetch) -> Result<GatewayBuild, FetchError>;

    /// Settings before anybody set anything, with their sources.
    fn defaults(&self) -> EffectiveSettings;

    /// What annotations of an Ingress say to its controller.
    fn ingress_annotations(&self, annotations: &Annotations, overrides: &mut Overrides) {
        let _ = (annotations, overrides);
    }

    /// What annotations of a Service (or its port) say to its controller.
    fn service_annotations(&self, service: &ServicePort<'_>, overrides: &mut Overrides) {
        let _ = (service, overrides);
    }

    /// Whether plain HTTP to a host is answered by a redirect.
    fn redirects_to_https(&self, annotations: &Annotations, has_certificate: bool) -> bool;

    /// Whether a path of an Ingress (as the Ingress says it) takes WebSocket upgrades.
    fn takes_upgrades(&self, annotations: &Annotations, path: &str) -> bool {
        let _ = (annotations, path);
        true
    }

    /// Middlewares that an Ingress names: read to know what a gateway that configures itself does.
    fn middlewares(&self, annotations: &Annotations) -> Vec<String> {
        let _ = annotations;
        Vec::new()
    }

    /// Whether a Service's annotations leave the choice of the pod to the Service.
    fn sends_to_cluster_ip(&self, annotations: &Annotations) -> bool {
        let _ = annotations;
        false
    }

    /// The gateway for the agent; it runs from the first configuration on.
    fn start(&self, start: Start) -> Box<dyn Gateway>;

    /// Reads its log, all lines together, because some are about requests that others name: for each line what it says, or `None`.
    fn read_log(&self, lines: &[LogLine<'_>]) -> Vec<Option<ReadLine>>;

    /// A line in the few words that an engineer remembers, whether it was seen or is expected; `None` for what says nothing beyond a status.
    fn mark(&self, fields: &Fields) -> Option<String>;

    /// The same for a line that was seen: many are not worth a mark, and what differs from run to run is left out.
    fn mark_of_seen(&self, fields: &Fields) -> Option<String> {
        self.mark(fields)
    }

    /// What its tests on loopback differ in.
    #[cfg(test)]
    fn bench(&self) -> BenchFacts;
}

/// What can be said of a gateway without doing anything.
pub(crate) struct Facts {
    /// Lower case, as it is typed: `nginx`.
    pub name: &'static str,
    /// As its makers write it.
    pub product: &'static str,
    /// The well-known controller whose defaults and semantics hold for it.
    pub follows: &'static str,
    /// Name of its binary on PATH.
    pub program: &'static str,
    pub banner: Banner,
    /// The package client of this machine that [`Adapter::fetch`] uses.
    pub package_client: &'static str,
    /// Places in its configuration that take raw snippets.
    pub snippets: &'static [SnippetPlace],
    /// The kinds of lines that its log has, in its own words.
    pub vocabulary: &'static [LineKind],
}

/// How a binary tells its version.
pub(crate) struct Banner {
    /// Argument that makes it print its version and end.
    pub argument: &'static str,
    /// The version within what it prints.
    pub read: fn(&str) -> Option<&str>,
    /// Major, minor, patch: the oldest that works, for a reason that stands beside it.
    pub least: (u64, u64, u64),
}

/// What a gateway is started with.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub binary: Binary,
    /// As the binary tells it.
    pub version: String,
    /// Folder for configuration and state, which exists.
    pub state: PathBuf,
    pub http_port: u16,
    pub https_port: u16,
    /// For whatever a gateway has for its operators, on the pod's loopback; 0 takes any, where the gateway can do that.
    pub admin_port: u16,
    /// As the first configuration has them: some gateways read some of them once.
    pub settings: EffectiveSettings,
    /// Limit of open files of this process.
    pub open_files: u64,
    /// The pod's name servers.
    pub name_servers: Vec<IpAddr>,
}

/// What a gateway does where the others do something else.
#[cfg(test)]
pub(crate) struct BenchFacts {
    /// Status for a route whose Service does not exist.
    pub missing_service: u16,
    /// Status of plain HTTP for a host with a certificate.
    pub plain_http: u16,
    /// Status when the backend's certificate is not trusted.
    pub untrusted: u16,
    /// What its log says then.
    pub untrusted_told: &'static str,
    /// Settings that it refuses, all with `no_such_` in them.
    pub refused: &'static [&'static str],
}
