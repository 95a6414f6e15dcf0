//! The usual annotations of ingress-nginx and Contour, and the lab's own for what those have no name for.
//!
//! `gatelab.dev/<key>` takes any key of [`Settings`] with its value in YAML, on every gateway:
//! `gatelab.dev/retries: "{tries: 1}"`.

use std::time::Duration;

use super::{
    Annotations, BackendProtocol, BufferSettings, Network, NginxSnippets, RetryOn, RetrySettings, RewriteTarget, Settings, Snippets,
    TlsSettings, duration, size,
};
use crate::GatewayKind;

const INGRESS_NGINX: &str = "nginx.ingress.kubernetes.io/";
const CONTOUR: &str = "projectcontour.io/";
/// Its older prefix `ingress.kubernetes.io/` is shared with other controllers, so it is not read.
const HAPROXY_INGRESS: &str = "haproxy-ingress.github.io/";
const OWN: &str = "gatelab.dev/";
/// Keys under [`OWN`] that the cluster writes for other readers.
const OTHERS: [&str; 1] = ["host-address"];

/// An annotation whose value cannot be used; the controllers ignore it and so does the agent, with an Event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {mistake}")]
pub struct AnnotationProblem {
    pub annotation: String,
    pub mistake: String,
}

/// What an Ingress sets for its backends. Annotations that mean nothing to this kind of gateway are passed over, as controllers do.
pub fn ingress_overrides(kind: GatewayKind, annotations: &Annotations) -> (Settings, Vec<AnnotationProblem>) {
    let mut settings = Settings::default();
    let mut problems = Vec::new();
    for (annotation, value) in annotations {
        let outcome = match kind {
            GatewayKind::Nginx => annotation.strip_prefix(INGRESS_NGINX).map(|key| ingress_nginx(&mut settings, key, value)),
            GatewayKind::Envoy => annotation.strip_prefix(CONTOUR).map(|key| contour(&mut settings, key, value)),
            // Traefik reads annotations by itself; on Ingresses they are about routers
            GatewayKind::Traefik => None,
            GatewayKind::Haproxy => annotation.strip_prefix(HAPROXY_INGRESS).map(|key| haproxy_ingress(&mut settings, key, value)),
        };
        if let Some(Err(mistake)) = outcome {
            problems.push(AnnotationProblem { annotation: annotation.clone(), mistake });
        }
    }
    // Traefik knows nothing of the lab
    if kind != GatewayKind::Traefik {
        own(&mut settings, annotations, &mut problems);
    }
    (settings, problems)
}

/// What a Service sets for itself (Contour reads the upstream's protocol there), for the port of that name and number.
pub fn service_overrides(
    kind: GatewayKind,
    annotations: &Annotations,
    port_name: Option<&str>,
    port: u16,
) -> (Settings, Vec<AnnotationProblem>) {
    let mut settings = Settings::default();
    let mut problems = Vec::new();
    if kind == GatewayKind::Envoy {
        let named = |value: &str| {
            value.split(',').map(str::trim).any(|entry| port_name == Some(entry) || entry.parse::<u16>().is_ok_and(|number| number == port))
        };
        for (protocol, meaning) in [("tls", BackendProtocol::Https), ("h2", BackendProtocol::Grpcs), ("h2c", BackendProtocol::H2c)] {
            if annotations.get(&format!("{CONTOUR}upstream-protocol.{protocol}")).is_some_and(|value| named(value)) {
                settings.backend_protocol = Some(meaning);
            }
        }
    }
    if kind == GatewayKind::Traefik {
        // Read to know what Traefik does, not to tell it (buildService in pkg/provider/kubernetes/ingress)
        let https = port == 443 || port_name.is_some_and(|name| name.starts_with("https"));
        settings.backend_protocol = match annotations.get("traefik.ingress.kubernetes.io/service.serversscheme").map(String::as_str) {
            Some("https") => Some(BackendProtocol::Https),
            Some("h2c") => Some(BackendProtocol::H2c),
            Some(_) => Some(BackendProtocol::Http),
            None => https.then_some(BackendProtocol::Https),
        };
        return (settings, problems);
    }
    if kind == GatewayKind::Haproxy {
        for (annotation, value) in annotations {
            if let Some(Err(mistake)) = annotation.strip_prefix(HAPROXY_INGRESS).map(|key| haproxy_ingress(&mut settings, key, value)) {
                problems.push(AnnotationProblem { annotation: annotation.clone(), mistake });
            }
        }
    }
    own(&mut settings, annotations, &mut problems);
    (settings, problems)
}

/// Whether a host with a certificate answers plain HTTP by a redirect: ingress-nginx' `ssl-redirect` (on unless switched off, when the
/// host has a certificate) and `force-ssl-redirect`, Contour's `ingress.kubernetes.io/force-ssl-redirect`.
pub fn redirects_to_https(kind: GatewayKind, annotations: &Annotations, has_certificate: bool) -> bool {
    let says = |annotation: &str, value: &str| annotations.get(annotation).is_some_and(|actual| actual == value);
    match kind {
        GatewayKind::Nginx => {
            says("nginx.ingress.kubernetes.io/force-ssl-redirect", "true")
                || (has_certificate && !says("nginx.ingress.kubernetes.io/ssl-redirect", "false"))
        }
        GatewayKind::Envoy => says("ingress.kubernetes.io/force-ssl-redirect", "true"),
        GatewayKind::Traefik => false,
        // ssl-redirect: "true" unless switched off, for hosts with a certificate
        GatewayKind::Haproxy => has_certificate && !says("haproxy-ingress.github.io/ssl-redirect", "false"),
    }
}

/// Whether a path of an Ingress takes WebSocket upgrades: on Contour those listed in `projectcontour.io/websocket-routes` (paths as the
/// Ingress says them, parted by commas), everywhere else all.
pub fn takes_upgrades(kind: GatewayKind, annotations: &Annotations, path: &str) -> bool {
    let listed = || annotations.get(&format!("{CONTOUR}websocket-routes"));
    kind != GatewayKind::Envoy || listed().is_some_and(|routes| routes.split(',').any(|route| route.trim() == path))
}

fn own(settings: &mut Settings, annotations: &Annotations, problems: &mut Vec<AnnotationProblem>) {
    for (annotation, value) in annotations {
        let Some(key) = annotation.strip_prefix(OWN).filter(|key| !OTHERS.contains(key)) else { continue };
        let read = match read_key(key, value) {
            Ok(read) => read,
            Err(mistake) => {
                problems.push(AnnotationProblem { annotation: annotation.clone(), mistake });
                continue;
            }
        };
        merge(settings, read);
    }
}

fn read_key(key: &str, value: &str) -> Result<Settings, String> {
    let value: serde_json::Value = serde_saphyr::from_str(value).map_err(|error| error.to_string())?;
    serde_json::from_value(serde_json::json!({ key: value })).map_err(|error| error.to_string())
}

/// Takes over what is set in `added`, which has one key.
fn merge(settings: &mut Settings, added: Settings) {
    macro_rules! take {
        ($($field:ident),*) => { $(if added.$field.is_some() { settings.$field = added.$field; })* };
    }
    take!(
        connect_timeout,
        read_timeout,
        send_timeout,
        idle_timeout,
        client_idle_timeout,
        tunnel_timeout,
        retries,
        keepalive,
        passive_checks,
        buffers,
        backend_protocol,
        tls,
        dns,
        sync_delay,
        workers,
        request_body_limit,
        rewrite_target,
        allow_sources,
        snippets
    );
}

/// User guide of ingress-nginx, "Annotations". Its times are whole seconds without a unit.
fn ingress_nginx(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
    fn retries(settings: &mut Settings) -> &mut RetrySettings {
        settings.retries.get_or_insert_default()
    }
    fn buffers(settings: &mut Settings) -> &mut BufferSettings {
        settings.buffers.get_or_insert_default()
    }
    fn tls(settings: &mut Settings) -> &mut TlsSettings {
        settings.tls.get_or_insert_default()
    }
    fn snippets(settings: &mut Settings) -> &mut NginxSnippets {
        settings.snippets.get_or_insert_with(Snippets::default).nginx.get_or_insert_default()
    }
    match key {
        "proxy-connect-timeout" => settings.connect_timeout = Some(seconds(value)?),
        "proxy-read-timeout" => settings.read_timeout = Some(seconds(value)?),
        "proxy-send-timeout" => settings.send_timeout = Some(seconds(value)?),
        "proxy-next-upstream" => {
            let words = value.split_whitespace();
            let on = words.clone().filter(|word| !["non_idempotent", "off"].contains(word)).map(next_upstream);
            retries(settings).on = Some(on.collect::<Result<_, _>>()?);
            retries(settings).non_idempotent = Some(words.clone().any(|word| word == "non_idempotent"));
        }
        "proxy-next-upstream-tries" => retries(settings).tries = Some(number(value)?),
        "proxy-next-upstream-timeout" => retries(settings).timeout = Some(seconds(value)?),
        "backend-protocol" => {
            settings.backend_protocol = Some(match value.to_ascii_uppercase().as_str() {
                "HTTP" | "AUTO_HTTP" => BackendProtocol::Http,
                "HTTPS" => BackendProtocol::Https,
                "GRPC" => BackendProtocol::Grpc,
                "GRPCS" => BackendProtocol::Grpcs,
                _ => return Err(format!("`{value}` is none of HTTP, HTTPS, GRPC, GRPCS")),
            });
        }
        "proxy-ssl-verify" => tls(settings).verify = Some(switch(value)?),
        "proxy-ssl-secret" => tls(settings).ca_secret = Some(value.to_owned()),
        "proxy-ssl-name" => tls(settings).name = Some(value.to_owned()),
        "proxy-buffer-size" => buffers(settings).response_header = Some(size::parse(value)?),
        "proxy-buffers-number" => buffers(settings).count = Some(number(value)?),
        "proxy-buffering" => buffers(settings).response_buffering = Some(switch(value)?),
        "proxy-request-buffering" => buffers(settings).request_buffering = Some(switch(value)?),
        "proxy-body-size" => settings.request_body_limit = Some(size::parse(value)?),
        "rewrite-target" => settings.rewrite_target = Some(RewriteTarget::try_from(value.to_owned())?),
        // The older name is understood still, as its alias
        "allowlist-source-range" | "whitelist-source-range" => settings.allow_sources = Some(networks(value)?),
        "configuration-snippet" => snippets(settings).location = Some(value.to_owned()),
        "server-snippet" => snippets(settings).server = Some(value.to_owned()),
        _ => {}
    }
    Ok(())
}

fn next_upstream(word: &str) -> Result<RetryOn, String> {
    Ok(match word {
        "error" => RetryOn::Error,
        "timeout" => RetryOn::Timeout,
        "invalid_header" => RetryOn::InvalidHeader,
        "http_403" => RetryOn::Http403,
        "http_404" => RetryOn::Http404,
        "http_429" => RetryOn::Http429,
        "http_500" => RetryOn::Http500,
        "http_502" => RetryOn::Http502,
        "http_503" => RetryOn::Http503,
        "http_504" => RetryOn::Http504,
        _ => return Err(format!("`{word}` is no reason of proxy_next_upstream")),
    })
}

/// Contour, "Annotations Reference".
fn contour(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
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

/// HAProxy Ingress, "Configuration keys"; keys of backends, on Ingresses and on Services.
fn haproxy_ingress(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
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
            settings.snippets.get_or_insert_with(Snippets::default).haproxy.get_or_insert_default().backend = Some(value.to_owned());
        }
        _ => {}
    }
    Ok(())
}

/// Addresses and networks, with commas between them.
fn networks(value: &str) -> Result<Vec<Network>, String> {
    value.split(',').map(|network| Network::try_from(network.trim().to_owned())).collect()
}

fn seconds(value: &str) -> Result<Duration, String> {
    value.trim().parse().map(Duration::from_secs).map_err(|_| format!("`{value}` is no whole number of seconds"))
}

fn number(value: &str) -> Result<u32, String> {
    value.trim().parse().map_err(|_| format!("`{value}` is no whole number"))
}

fn switch(value: &str) -> Result<bool, String> {
    match value.trim() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(format!("`{value}` is neither `on` nor `off`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn ingress_nginx_annotations_are_for_nginx_only() {
        let given = annotations(&[
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", "5"),
            ("nginx.ingress.kubernetes.io/backend-protocol", "HTTPS"),
            ("nginx.ingress.kubernetes.io/proxy-next-upstream", "error http_502 non_idempotent"),
            ("nginx.ingress.kubernetes.io/proxy-ssl-verify", "on"),
        ]);
        let (settings, problems) = ingress_overrides(GatewayKind::Nginx, &given);
        assert_eq!(problems, []);
        assert_eq!(settings.read_timeout, Some(Duration::from_secs(5)));
        assert_eq!(settings.backend_protocol, Some(BackendProtocol::Https));
        let retries = settings.retries.unwrap();
        assert_eq!((retries.on, retries.non_idempotent), (Some(vec![RetryOn::Error, RetryOn::Http502]), Some(true)));
        assert_eq!(settings.tls.unwrap().verify, Some(true));
        assert_eq!(ingress_overrides(GatewayKind::Envoy, &given), (Settings::default(), Vec::new()));
    }

    #[test]
    fn contour_annotations_are_for_envoy() {
        let given = annotations(&[
            ("projectcontour.io/response-timeout", "infinity"),
            ("projectcontour.io/retry-on", "connect-failure"),
            ("projectcontour.io/num-retries", "2"),
        ]);
        let (settings, problems) = ingress_overrides(GatewayKind::Envoy, &given);
        assert_eq!(problems, []);
        assert_eq!(settings.read_timeout, Some(Duration::ZERO));
        assert_eq!(settings.retries.unwrap().tries, Some(3));
        let service = annotations(&[("projectcontour.io/upstream-protocol.tls", "443,https")]);
        let protocol = |name, number| service_overrides(GatewayKind::Envoy, &service, name, number).0.backend_protocol;
        assert_eq!(protocol(Some("https"), 8443), Some(BackendProtocol::Https));
        assert_eq!(protocol(None, 443), Some(BackendProtocol::Https));
        assert_eq!(protocol(Some("http"), 80), None);
    }

    #[test]
    fn contour_upgrades_only_what_is_listed() {
        let given = annotations(&[("projectcontour.io/websocket-routes", "/feed , /chat")]);
        assert!(takes_upgrades(GatewayKind::Envoy, &given, "/feed") && takes_upgrades(GatewayKind::Envoy, &given, "/chat"));
        assert!(!takes_upgrades(GatewayKind::Envoy, &given, "/") && !takes_upgrades(GatewayKind::Envoy, &Annotations::new(), "/feed"));
        assert!(takes_upgrades(GatewayKind::Nginx, &Annotations::new(), "/feed"));
    }

    #[test]
    fn rewrites_and_networks_are_read_by_each_controllers_own_names() {
        let given = annotations(&[
            ("nginx.ingress.kubernetes.io/rewrite-target", "/"),
            ("nginx.ingress.kubernetes.io/whitelist-source-range", "192.0.2.0/24, 198.51.100.7"),
            ("haproxy-ingress.github.io/rewrite-target", "/api"),
            ("haproxy-ingress.github.io/allowlist-source-range", "192.0.2.0/24"),
        ]);
        let read = |kind| {
            let (settings, problems) = ingress_overrides(kind, &given);
            assert_eq!(problems, []);
            let networks = settings.allow_sources.unwrap_or_default();
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            (settings.rewrite_target.map(String::from).unwrap_or_default(), networks.join(" "))
        };
        assert_eq!(read(GatewayKind::Nginx), ("/".to_owned(), "192.0.2.0/24 198.51.100.7/32".to_owned()));
        assert_eq!(read(GatewayKind::Haproxy), ("/api".to_owned(), "192.0.2.0/24".to_owned()));
        assert_eq!(read(GatewayKind::Envoy), (String::new(), String::new()));
        let wrong = annotations(&[("gatelab.dev/allow-sources", "[everybody]"), ("gatelab.dev/rewrite-target", "/$1")]);
        assert_eq!(ingress_overrides(GatewayKind::Envoy, &wrong).1.len(), 2);
    }

    #[test]
    fn the_labs_own_annotations_take_the_whole_vocabulary() {
        let given = annotations(&[("gatelab.dev/connect-timeout", "250ms"), ("gatelab.dev/retries", "{tries: 1, on: [error]}")]);
        for kind in [GatewayKind::Nginx, GatewayKind::Envoy, GatewayKind::Haproxy] {
            let (settings, problems) = ingress_overrides(kind, &given);
            assert_eq!(problems, []);
            assert_eq!(settings.connect_timeout, Some(Duration::from_millis(250)));
            assert_eq!(settings.retries.unwrap().tries, Some(1));
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_and_left_out() {
        let given = annotations(&[
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", "5s"),
            ("nginx.ingress.kubernetes.io/unknown", "x"),
            ("gatelab.dev/conect-timeout", "1s"),
        ]);
        let (settings, problems) = ingress_overrides(GatewayKind::Nginx, &given);
        assert_eq!(settings, Settings::default());
        insta::assert_debug_snapshot!(problems);
    }
}
