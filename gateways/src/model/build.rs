//! Kubernetes objects to model.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{ObjectReference, Secret, Service},
    networking::v1::{HTTPIngressPath, Ingress, IngressBackend},
};
use kube::{Resource, ResourceExt};

use super::{Backend, Certificate, ExternalName, Host, HostName, Model, Objects, PathMatch, Problem, Route, Target, endpoints};
use crate::{
    EffectiveSettings, GatewayKind, Settings,
    manifests::SETTINGS_KEY,
    settings::{ServicePort, ingress_overrides, service_overrides},
};

/// Makes the model. Mistakes in objects become [`Problem`]s; everything else is built as if they were not there.
pub fn build(kind: GatewayKind, objects: &Objects) -> Model {
    let mut builder = Builder { kind, objects, problems: Vec::new(), hosts: BTreeMap::new(), backends: BTreeMap::new() };
    let global = builder.global_settings();
    let classes = builder.own_classes();
    let mut ingresses: Vec<&Arc<Ingress>> = objects.ingresses.iter().filter(|ingress| is_ours(ingress, &classes)).collect();
    // Where two Ingresses claim the same path the older one wins, as in both controllers.
    ingresses.sort_by_key(|ingress| (ingress.creation_timestamp().map(|time| time.0), ingress.namespace(), ingress.name_any()));
    for ingress in ingresses {
        builder.add(ingress, &global);
    }
    let hosts = builder.hosts.into_values().collect();
    Model { kind, global, hosts, backends: builder.backends, problems: builder.problems }
}

/// Classes whose `spec.controller` is this agent, and whether one of them is the default.
struct OwnClasses {
    names: BTreeSet<String>,
    default: bool,
}

struct Builder<'a> {
    kind: GatewayKind,
    objects: &'a Objects,
    problems: Vec<Problem>,
    hosts: BTreeMap<HostName, Host>,
    backends: BTreeMap<String, Backend>,
}

fn is_ours(ingress: &Ingress, classes: &OwnClasses) -> bool {
    match ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_ref()) {
        Some(class) => classes.names.contains(class),
        None => classes.default,
    }
}

impl Builder<'_> {
    fn problem<K: Resource<DynamicType = ()>>(&mut self, object: &K, reason: &'static str, message: String) {
        let object: ObjectReference = object.object_ref(&());
        self.problems.push(Problem { object, reason, message });
    }

    fn own_classes(&self) -> OwnClasses {
        let mut classes = OwnClasses { names: BTreeSet::new(), default: false };
        for class in &self.objects.classes {
            if class.spec.as_ref().and_then(|spec| spec.controller.as_deref()) == Some(self.kind.controller()) {
                classes.names.insert(class.name_any());
                classes.default |=
                    class.annotations().get("ingressclass.kubernetes.io/is-default-class").is_some_and(|value| value == "true");
            }
        }
        classes
    }

    fn global_settings(&mut self) -> EffectiveSettings {
        let defaults = EffectiveSettings::defaults(self.kind);
        let Some(map) = self.objects.settings.clone() else { return defaults };
        let text = map.data.as_ref().and_then(|data| data.get(SETTINGS_KEY)).map_or("", String::as_str);
        match Settings::from_yaml(text) {
            Ok(settings) => defaults.overlaid(&settings),
            Err(error) => {
                self.problem(map.as_ref(), "InvalidSettings", error.to_string());
                defaults
            }
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let found =
            self.objects.services.iter().find(|service| service.namespace().as_deref() == Some(namespace) && service.name_any() == name);
        found.cloned()
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        let found =
            self.objects.secrets.iter().find(|secret| secret.namespace().as_deref() == Some(namespace) && secret.name_any() == name);
        found.cloned()
    }

    fn host(&mut self, name: &HostName) -> &mut Host {
        self.hosts.entry(name.clone()).or_insert_with(|| Host { name: name.clone(), routes: Vec::new(), certificate: None })
    }

    fn add(&mut self, ingress: &Arc<Ingress>, global: &EffectiveSettings) {
        let Some(spec) = &ingress.spec else { return };
        let (overrides, mistakes) = ingress_overrides(self.kind, ingress.annotations());
        for mistake in mistakes {
            self.problem(ingress.as_ref(), "InvalidAnnotation", mistake.to_string());
        }
        let settings = global.clone().overlaid(&overrides);
        for tls in spec.tls.iter().flatten() {
            if let Some(certificate) = self.certificate(ingress, tls.secret_name.as_deref()) {
                for host in tls.hosts.iter().flatten() {
                    self.host(&host_name(Some(host))).certificate.get_or_insert_with(|| certificate.clone());
                }
            }
        }
        for rule in spec.rules.iter().flatten() {
            let name = host_name(rule.host.as_deref());
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                self.add_path(ingress, &name, path, &settings);
            }
        }
        if let Some(backend) = &spec.default_backend {
            let path = HTTPIngressPath { backend: backend.clone(), path: Some("/".to_owned()), path_type: "Prefix".to_owned() };
            self.add_path(ingress, &HostName::Any, &path, &settings);
        }
    }

    fn add_path(&mut self, ingress: &Arc<Ingress>, name: &HostName, path: &HTTPIngressPath, settings: &EffectiveSettings) {
        let (text, matching) = match path.path_type.as_str() {
            "Exact" => (path.path.clone().unwrap_or_else(|| "/".to_owned()), PathMatch::Exact),
            "Prefix" => {
                let text = path.path.as_deref().unwrap_or("/");
                // `/foo` and `/foo/` mean the same (Kubernetes API, pathType)
                let trimmed = text.trim_end_matches('/');
                (if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }, PathMatch::Prefix)
            }
            _ => (path.path.clone().unwrap_or_else(|| "/".to_owned()), PathMatch::TextPrefix),
        };
        if !text.starts_with('/') || text.contains(|c: char| c.is_whitespace() || c.is_control() || "{};\"'\\$".contains(c)) {
            self.problem(ingress.as_ref(), "InvalidPath", format!("the gateway cannot route the path {text:?}"));
            return;
        }
        if name_is_unsafe(name) {
            self.problem(ingress.as_ref(), "InvalidHost", format!("the gateway cannot route the host {name:?}"));
            return;
        }
        let (target, settings) = self.target(ingress, &path.backend, settings);
        let ca = self.certificate_authority(ingress, &settings);
        let adapter = self.kind.adapter();
        let host = self.host(name);
        if host.routes.iter().any(|route| route.path == text && route.matching == matching) {
            return;
        }
        let redirect_to_https = adapter.redirects_to_https(ingress.annotations(), host.certificate.is_some());
        let upgrades = adapter.takes_upgrades(ingress.annotations(), path.path.as_deref().unwrap_or("/"));
        let middlewares = adapter.middlewares(ingress.annotations());
        let ingress = format!("{}/{}", ingress.namespace().unwrap_or_default(), ingress.name_any());
        host.routes.push(Route { path: text, matching, target, settings, ca, redirect_to_https, upgrades, middlewares, ingress });
    }

    fn target(&mut self, ingress: &Arc<Ingress>, backend: &IngressBackend, settings: &EffectiveSettings) -> (Target, EffectiveSettings) {
        let namespace = ingress.namespace().unwrap_or_default();
        let Some((name, wanted)) = backend.service.as_ref().and_then(|service| Some((&service.name, service.port.as_ref()?))) else {
            self.problem(ingress.as_ref(), "UnsupportedBackend", "only backends that are Services with a port are routed".to_owned());
            return (Target::Unresolved(format!("{namespace}-unsupported")), settings.clone());
        };
        let port_text = wanted.name.clone().or_else(|| wanted.number.map(|number| number.to_string())).unwrap_or_default();
        let key = format!("{namespace}-{name}-{port_text}");
        let Some(service) = self.service(&namespace, name) else {
            let message = format!("Service {namespace}/{name} does not exist");
            self.problem(ingress.as_ref(), "ServiceNotFound", message);
            return (Target::Unresolved(key), settings.clone());
        };
        let Some(port) = endpoints::find_port(&service, wanted) else {
            let message = format!("Service {namespace}/{name} has no port {port_text}");
            self.problem(ingress.as_ref(), "ServicePortNotFound", message);
            return (Target::Unresolved(key), settings.clone());
        };
        let number = u16::try_from(port.port).unwrap_or_default();
        let service_port = ServicePort { annotations: service.annotations(), name: port.name.as_deref(), number };
        let (overrides, mistakes) = service_overrides(self.kind, &service_port);
        for mistake in mistakes {
            self.problem(service.as_ref(), "InvalidAnnotation", mistake.to_string());
        }
        let external = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("ExternalName")).map(|spec| {
            let name = spec.external_name.as_deref().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
            ExternalName { name, port: number }
        });
        if let Some(external) = external.as_ref().filter(|external| !is_host_name(&external.name)) {
            let message = format!("Service {namespace}/{name} has an externalName that is no host name: {:?}", external.name);
            self.problem(ingress.as_ref(), "InvalidExternalName", message);
            return (Target::Unresolved(key), settings.clone());
        }
        let endpoints = match &external {
            Some(_) => Vec::new(),
            None if self.kind.adapter().sends_to_cluster_ip(service.annotations()) => {
                cluster_address(&service, number).into_iter().collect()
            }
            None => endpoints::ready_endpoints(&self.objects.endpoint_slices, &namespace, name, port),
        };
        let backend = Backend { name: key.clone(), namespace, service: name.clone(), port: port_text, endpoints, external };
        self.backends.insert(key.clone(), backend);
        (Target::Backend(key), settings.clone().overlaid(&overrides))
    }

    fn certificate(&mut self, ingress: &Arc<Ingress>, secret_name: Option<&str>) -> Option<Certificate> {
        let namespace = ingress.namespace().unwrap_or_default();
        let name = secret_name?;
        let Some(secret) = self.secret(&namespace, name) else {
            self.problem(ingress.as_ref(), "SecretNotFound", format!("Secret {namespace}/{name} does not exist"));
            return None;
        };
        match (text_of(&secret, "tls.crt"), text_of(&secret, "tls.key")) {
            (Some(chain), Some(key)) => Some(Certificate { secret: format!("{namespace}/{name}"), chain, key }),
            _ => {
                self.problem(ingress.as_ref(), "InvalidSecret", format!("Secret {namespace}/{name} has no tls.crt and tls.key in PEM"));
                None
            }
        }
    }

    fn certificate_authority(&mut self, ingress: &Arc<Ingress>, settings: &EffectiveSettings) -> Option<String> {
        let reference = settings.tls_ca_secret.as_deref()?;
        let own_namespace = ingress.namespace().unwrap_or_default();
        let (namespace, name) = reference.split_once('/').unwrap_or((&own_namespace, reference));
        let pem = self.secret(namespace, name).and_then(|secret| text_of(&secret, "ca.crt"));
        if pem.is_none() {
            self.problem(ingress.as_ref(), "SecretNotFound", format!("there is no Secret {namespace}/{name} with ca.crt in PEM"));
        }
        pem
    }
}

fn cluster_address(service: &Service, port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new(service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()?, port))
}

fn text_of(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    let text = String::from_utf8(bytes.0.clone()).ok()?;
    text.contains("-----BEGIN ").then_some(text)
}

fn host_name(host: Option<&str>) -> HostName {
    match host {
        None | Some("") => HostName::Any,
        Some(host) => match host.strip_prefix("*.") {
            Some(rest) => HostName::Wildcard(rest.to_ascii_lowercase()),
            None => HostName::Exact(host.to_ascii_lowercase()),
        },
    }
}

/// Names go into configuration files as they are. The API server allows DNS names only, but this agent shall not depend on that.
fn name_is_unsafe(name: &HostName) -> bool {
    match name {
        HostName::Any => false,
        HostName::Exact(name) | HostName::Wildcard(name) => !is_host_name(name),
    }
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}
