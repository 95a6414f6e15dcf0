//! The annotations of HAProxy Ingress.

use super::KIND;
use crate::settings::{
    Annotations, BackendProtocol, Overrides, RewriteTarget, ServicePort, Settings, Snippets, duration, size, value::networks,
};

/// Its older prefix `ingress.kubernetes.io/` is shared with other controllers, so it is not read.
const PREFIX: &str = "haproxy-ingress.github.io/";

pub(super) fn of_ingress(annotations: &Annotations, overrides: &mut Overrides) {
    overrides.read(annotations, PREFIX, read);
}

pub(super) fn of_service(service: &ServicePort<'_>, overrides: &mut Overrides) {
    overrides.read(service.annotations, PREFIX, read);
}

/// `ssl-redirect` is on unless switched off, for hosts with a certificate.
pub(super) fn redirects_to_https(annotations: &Annotations, has_certificate: bool) -> bool {
    has_certificate && annotations.get(&format!("{PREFIX}ssl-redirect")).is_none_or(|value| value != "false")
}

/// HAProxy Ingress, "Configuration keys"; keys of backends, on Ingresses and on Services.
fn read(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
    match key {
        "timeout-connect" => settings.connect_timeout = Some(duration::parse(value)?),
        "timeout-server" => settings.read_timeout = Some(duration::parse(value)?),
        "timeout-tunnel" => settings.tunnel_timeout = Some(duration::parse(value)?),
        "backend-protocol" => {
            settings.backend_protocol = Some(match value.to_ascii_lowercase().as_str() {
                "h1" => BackendProtocol::Http,
                "h1-ssl" => BackendProtocol::Https,
                "h2" | "grpc" => BackendProtocol::H2c,
                "h2-ssl" | "grpcs" => BackendProtocol::Grpcs,
                _ => return Err(format!("`{value}` is none of h1, h1-ssl, h2, h2-ssl, grpc, grpcs")),
            });
        }
        "secure-verify-ca-secret" => {
            let tls = settings.tls.get_or_insert_default();
            (tls.verify, tls.ca_secret) = (Some(true), Some(value.to_owned()));
        }
        "secure-sni" => settings.tls.get_or_insert_default().name = Some(value.to_owned()),
        "proxy-body-size" => settings.request_body_limit = Some(size::parse(value)?),
        "rewrite-target" => settings.rewrite_target = Some(RewriteTarget::try_from(value.to_owned())?),
        "allowlist-source-range" | "whitelist-source-range" => settings.allow_sources = Some(networks(value)?),
        "config-backend" => {
            settings.snippets.get_or_insert_with(Snippets::default).add(KIND, "backend", value);
        }
        _ => {}
    }
    Ok(())
}
