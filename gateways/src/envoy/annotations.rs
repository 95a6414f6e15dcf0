//! The annotations of Contour.

use std::time::Duration;

use crate::settings::{Annotations, BackendProtocol, Overrides, RetryOn, ServicePort, Settings, duration, value::number};

const PREFIX: &str = "projectcontour.io/";

pub(super) fn of_ingress(annotations: &Annotations, overrides: &mut Overrides) {
    overrides.read(annotations, PREFIX, read);
}

/// Contour reads the upstream's protocol on the Service, for ports by name or number.
pub(super) fn of_service(service: &ServicePort<'_>, overrides: &mut Overrides) {
    let named = |value: &str| value.split(',').map(str::trim).any(|entry| service.is_called(entry));
    for (protocol, meaning) in [("tls", BackendProtocol::Https), ("h2", BackendProtocol::Grpcs), ("h2c", BackendProtocol::H2c)] {
        if service.annotations.get(&format!("{PREFIX}upstream-protocol.{protocol}")).is_some_and(|value| named(value)) {
            overrides.settings.backend_protocol = Some(meaning);
        }
    }
}

pub(super) fn redirects_to_https(annotations: &Annotations) -> bool {
    annotations.get("ingress.kubernetes.io/force-ssl-redirect").is_some_and(|value| value == "true")
}

/// Paths as the Ingress says them, parted by commas.
pub(super) fn takes_upgrades(annotations: &Annotations, path: &str) -> bool {
    let listed = annotations.get(&format!("{PREFIX}websocket-routes"));
    listed.is_some_and(|routes| routes.split(',').any(|route| route.trim() == path))
}

/// Contour, "Annotations Reference".
fn read(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
    match key {
        "response-timeout" => {
            // "infinity" switches it off, as 0 does for Envoy.
            let infinite = ["infinity", "infinite"].contains(&value);
            settings.read_timeout = Some(if infinite { Duration::ZERO } else { duration::parse(value)? });
        }
        "retry-on" => {
            let mut on = Vec::new();
            for condition in value.split(',').map(str::trim).filter(|condition| !condition.is_empty()) {
                on.extend_from_slice(match condition {
                    "connect-failure" => &[RetryOn::ConnectFailure],
                    "reset" | "refused-stream" | "reset-before-request" => &[RetryOn::Error],
                    "gateway-error" => &[RetryOn::Http502, RetryOn::Http503, RetryOn::Http504],
                    "5xx" => &[RetryOn::Error, RetryOn::Http500, RetryOn::Http502, RetryOn::Http503, RetryOn::Http504],
                    _ => return Err(format!("the lab does not know the retry condition `{condition}`")),
                });
            }
            settings.retries.get_or_insert_default().on = Some(on);
        }
        // -1 switches retries off, 0 means the default of one
        "num-retries" => {
            settings.retries.get_or_insert_default().tries = Some(match value.trim() {
                "-1" => 1,
                value => number(value)?.max(1).saturating_add(1),
            });
        }
        "per-try-timeout" => settings.retries.get_or_insert_default().per_try_timeout = Some(duration::parse(value)?),
        _ => {}
    }
    Ok(())
}
