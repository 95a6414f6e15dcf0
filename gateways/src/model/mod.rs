//! What is to be routed where: a pure function of Kubernetes objects and settings, the same for every gateway.

mod build;
mod endpoints;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use k8s_openapi::api::{
    core::v1::{ConfigMap, ObjectReference, Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};

pub use build::build;

use crate::{EffectiveSettings, GatewayKind};

/// The objects that the agent follows.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub ingresses: Vec<Arc<Ingress>>,
    pub classes: Vec<Arc<IngressClass>>,
    pub services: Vec<Arc<Service>>,
    pub endpoint_slices: Vec<Arc<EndpointSlice>>,
    pub secrets: Vec<Arc<Secret>>,
    /// ConfigMap `gateway-settings`, if there is one.
    pub settings: Option<Arc<ConfigMap>>,
}

/// Everything that a gateway's configuration is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub kind: GatewayKind,
    /// Settings before any annotation.
    pub global: EffectiveSettings,
    /// Exact names first, then wildcards, then the one for all other names.
    pub hosts: Vec<Host>,
    /// By [`Backend::name`].
    pub backends: BTreeMap<String, Backend>,
    /// What is wrong with the objects, in the order of the objects.
    pub problems: Vec<Problem>,
}

/// Which `Host` headers a [`Host`] is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostName {
    Exact(String),
    /// `*.example.org` is kept as `example.org`; it stands for exactly one more label (Kubernetes API, IngressRule.host).
    Wildcard(String),
    Any,
}

/// All routes of one host name.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    pub name: HostName,
    pub routes: Vec<Route>,
    pub certificate: Option<Certificate>,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathMatch {
    /// The whole path.
    Exact,
    /// Element by element, split at `/` (Kubernetes API, pathType `Prefix`).
    Prefix,
    /// As text: what ingress-nginx and Contour make of pathType `ImplementationSpecific`.
    TextPrefix,
}

/// One path of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub path: String,
    pub matching: PathMatch,
    pub target: Target,
    pub settings: EffectiveSettings,
    /// PEM of the certificate authorities for the backend's certificate.
    pub ca: Option<String>,
    /// Plain HTTP is answered by a redirect.
    pub redirect_to_https: bool,
    /// WebSocket handshakes are let through.
    pub upgrades: bool,
    /// Middlewares for it, as the Ingress' annotation names them, of a gateway that configures itself.
    pub middlewares: Vec<String>,
    /// `namespace/name` of the Ingress.
    pub ingress: String,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Key in [`Model::backends`].
    Backend(String),
    /// The Service, or its port, is not there. Controllers differ: ingress-nginx answers 503, Contour leaves the route out.
    Unresolved(String),
}

/// One port of one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// `<namespace>-<service>-<port>`, ingress-nginx' upstream name.
    pub name: String,
    pub namespace: String,
    pub service: String,
    /// Name or number, as the Ingress says it.
    pub port: String,
    /// Ready pods, sorted. Empty for an external name.
    pub endpoints: Vec<SocketAddr>,
    /// The Service is of type ExternalName: the gateway looks this name up by itself.
    pub external: Option<ExternalName>,
}

/// Where a Service of type ExternalName leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalName {
    /// Without the final dot.
    pub name: String,
    pub port: u16,
}

impl Backend {
    /// There is nobody to send a request to.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.external.is_none()
    }
}

/// A certificate for TLS from clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `namespace/name` of the Secret.
    pub secret: String,
    /// PEM
    pub chain: String,
    /// PEM
    pub key: String,
}

/// Something wrong with an object, for an Event on it and a line in the agent's log.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub object: ObjectReference,
    /// CamelCase, for the Event.
    pub reason: &'static str,
    pub message: String,
}

impl Objects {
    /// `Kind/namespace/name` (no namespace for cluster-wide kinds) and resourceVersion of every object.
    pub fn versions(&self) -> BTreeMap<String, String> {
        use kube::Resource;
        fn add<K: Resource<DynamicType = ()>>(versions: &mut BTreeMap<String, String>, objects: &[Arc<K>]) {
            for object in objects {
                let metadata = object.meta();
                let namespace = metadata.namespace.as_deref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
                let key = format!("{}/{namespace}{}", K::kind(&()), metadata.name.as_deref().unwrap_or_default());
                versions.insert(key, metadata.resource_version.clone().unwrap_or_default());
            }
        }
        let mut versions = BTreeMap::new();
        add(&mut versions, &self.ingresses);
        add(&mut versions, &self.classes);
        add(&mut versions, &self.services);
        add(&mut versions, &self.endpoint_slices);
        add(&mut versions, &self.secrets);
        add(&mut versions, self.settings.as_slice());
        versions
    }
}
