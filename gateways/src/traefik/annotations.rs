//! The annotations of Traefik, read to know what it does, not to tell it.

use crate::settings::{Annotations, BackendProtocol, Overrides, ServicePort};

const PREFIX: &str = "traefik.ingress.kubernetes.io/";

/// `buildService` in pkg/provider/kubernetes/ingress.
pub(super) fn of_service(service: &ServicePort<'_>, overrides: &mut Overrides) {
    let https = service.number == 443 || service.name.is_some_and(|name| name.starts_with("https"));
    overrides.settings.backend_protocol = match service.annotations.get(&format!("{PREFIX}service.serversscheme")).map(String::as_str) {
        Some("https") => Some(BackendProtocol::Https),
        Some("h2c") => Some(BackendProtocol::H2c),
        Some(_) => Some(BackendProtocol::Http),
        None => https.then_some(BackendProtocol::Https),
    };
}

pub(super) fn middlewares(annotations: &Annotations) -> Vec<String> {
    let names = annotations.get(&format!("{PREFIX}router.middlewares"));
    names.iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Leaves the choice of the pod to the Service.
pub(super) fn sends_to_cluster_ip(annotations: &Annotations) -> bool {
    annotations.get(&format!("{PREFIX}service.nativelb")).is_some_and(|value| value == "true")
}
