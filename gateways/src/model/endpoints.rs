//! From a Service's port to the pods behind it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceBackendPort,
};

/// The Service's port that an Ingress means, by name or number.
pub(super) fn find_port<'a>(service: &'a Service, wanted: &ServiceBackendPort) -> Option<&'a ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    ports.iter().find(|port| match (&wanted.name, wanted.number) {
        (Some(name), _) => port.name.as_ref() == Some(name),
        (None, Some(number)) => port.port == number,
        (None, None) => false,
    })
}

/// Pods behind a Service's port. Both controllers take the endpoints that are `ready` (an absent condition counts as ready) and no
/// others: ingress-nginx in internal/ingress/controller/endpointslices.go, Contour in internal/xdscache/v3/endpointslicetranslator.go.
/// A terminating pod is not ready, so it leaves at once, serving or not.
pub(super) fn ready_endpoints(slices: &[Arc<EndpointSlice>], namespace: &str, service: &str, port: &ServicePort) -> Vec<SocketAddr> {
    let port_name = port.name.as_deref().unwrap_or_default();
    let mut found = BTreeSet::new();
    for slice in slices {
        let labels = slice.metadata.labels.as_ref();
        if slice.metadata.namespace.as_deref() != Some(namespace)
            || labels.and_then(|labels| labels.get("kubernetes.io/service-name")).map(String::as_str) != Some(service)
        {
            continue;
        }
        let Some(number) = slice
            .ports
            .iter()
            .flatten()
            .find(|candidate| candidate.name.as_deref().unwrap_or_default() == port_name)
            .and_then(|candidate| u16::try_from(candidate.port?).ok())
        else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            if ready {
                found
                    .extend(endpoint.addresses.iter().filter_map(|address| Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, number))));
            }
        }
    }
    found.into_iter().collect()
}
