//! What annotations say: those of the gateway's own controller, and the lab's own for what those have no name for.
//!
//! `gatelab.dev/<key>` takes any key of [`Settings`] with its value in YAML, on every gateway that the agent configures:
//! `gatelab.dev/retries: "{tries: 1}"`.

use super::{Annotations, Settings};
use crate::GatewayKind;

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

/// What the annotations of one object set.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub settings: Settings,
    pub problems: Vec<AnnotationProblem>,
}

impl Overrides {
    /// Reads every annotation with this prefix. Keys that mean nothing to the reader are passed over, as controllers do.
    pub fn read(&mut self, annotations: &Annotations, prefix: &str, reader: impl Fn(&mut Settings, &str, &str) -> Result<(), String>) {
        for (annotation, value) in annotations {
            let Some(key) = annotation.strip_prefix(prefix) else { continue };
            if let Err(mistake) = reader(&mut self.settings, key, value) {
                self.problems.push(AnnotationProblem { annotation: annotation.clone(), mistake });
            }
        }
    }

    fn read_own(mut self, kind: GatewayKind, annotations: &Annotations) -> (Settings, Vec<AnnotationProblem>) {
        if !kind.adapter().configures_itself() {
            self.read(annotations, OWN, own);
        }
        (self.settings, self.problems)
    }
}

/// One port of a Service, and what the Service says.
#[derive(Debug, Clone, Copy)]
pub struct ServicePort<'a> {
    pub annotations: &'a Annotations,
    pub name: Option<&'a str>,
    pub number: u16,
}

impl ServicePort<'_> {
    /// By its name or its number.
    pub(crate) fn is_called(&self, text: &str) -> bool {
        self.name == Some(text) || text.parse() == Ok(self.number)
    }
}

/// What an Ingress sets for its backends. Annotations that mean nothing to this kind of gateway are passed over, as controllers do.
pub fn ingress_overrides(kind: GatewayKind, annotations: &Annotations) -> (Settings, Vec<AnnotationProblem>) {
    let mut overrides = Overrides::default();
    kind.adapter().ingress_annotations(annotations, &mut overrides);
    overrides.read_own(kind, annotations)
}

/// What a Service sets for itself.
pub fn service_overrides(kind: GatewayKind, service: &ServicePort<'_>) -> (Settings, Vec<AnnotationProblem>) {
    let mut overrides = Overrides::default();
    kind.adapter().service_annotations(service, &mut overrides);
    overrides.read_own(kind, service.annotations)
}

fn own(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
    if !OTHERS.contains(&key) {
        merge(settings, read_key(key, value)?);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        envoy::KIND as ENVOY,
        haproxy::KIND as HAPROXY,
        nginx::KIND as NGINX,
        settings::{BackendProtocol, RetryOn},
    };

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
        let (settings, problems) = ingress_overrides(NGINX, &given);
        assert_eq!(problems, []);
        assert_eq!(settings.read_timeout, Some(Duration::from_secs(5)));
        assert_eq!(settings.backend_protocol, Some(BackendProtocol::Https));
        let retries = settings.retries.unwrap();
        assert_eq!((retries.on, retries.non_idempotent), (Some(vec![RetryOn::Error, RetryOn::Http502]), Some(true)));
        assert_eq!(settings.tls.unwrap().verify, Some(true));
        assert_eq!(ingress_overrides(ENVOY, &given), (Settings::default(), Vec::new()));
    }

    #[test]
    fn contour_annotations_are_for_envoy() {
        let given = annotations(&[
            ("projectcontour.io/response-timeout", "infinity"),
            ("projectcontour.io/retry-on", "connect-failure"),
            ("projectcontour.io/num-retries", "2"),
        ]);
        let (settings, problems) = ingress_overrides(ENVOY, &given);
        assert_eq!(problems, []);
        assert_eq!(settings.read_timeout, Some(Duration::ZERO));
        assert_eq!(settings.retries.unwrap().tries, Some(3));
        let service = annotations(&[("projectcontour.io/upstream-protocol.tls", "443,https")]);
        let protocol = |name, number| service_overrides(ENVOY, &ServicePort { annotations: &service, name, number }).0.backend_protocol;
        assert_eq!(protocol(Some("https"), 8443), Some(BackendProtocol::Https));
        assert_eq!(protocol(None, 443), Some(BackendProtocol::Https));
        assert_eq!(protocol(Some("http"), 80), None);
    }

    #[test]
    fn contour_upgrades_only_what_is_listed() {
        let takes_upgrades = |kind: GatewayKind, annotations: &Annotations, path| kind.adapter().takes_upgrades(annotations, path);
        let given = annotations(&[("projectcontour.io/websocket-routes", "/feed , /chat")]);
        assert!(takes_upgrades(ENVOY, &given, "/feed") && takes_upgrades(ENVOY, &given, "/chat"));
        assert!(!takes_upgrades(ENVOY, &given, "/") && !takes_upgrades(ENVOY, &Annotations::new(), "/feed"));
        assert!(takes_upgrades(NGINX, &Annotations::new(), "/feed"));
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
        assert_eq!(read(NGINX), ("/".to_owned(), "192.0.2.0/24 198.51.100.7/32".to_owned()));
        assert_eq!(read(HAPROXY), ("/api".to_owned(), "192.0.2.0/24".to_owned()));
        assert_eq!(read(ENVOY), (String::new(), String::new()));
        let wrong = annotations(&[("gatelab.dev/allow-sources", "[everybody]"), ("gatelab.dev/rewrite-target", "/$1")]);
        assert_eq!(ingress_overrides(ENVOY, &wrong).1.len(), 2);
    }

    #[test]
    fn the_labs_own_annotations_take_the_whole_vocabulary() {
        let given = annotations(&[("gatelab.dev/connect-timeout", "250ms"), ("gatelab.dev/retries", "{tries: 1, on: [error]}")]);
        for kind in [NGINX, ENVOY, HAPROXY] {
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
        let (settings, problems) = ingress_overrides(NGINX, &given);
        assert_eq!(settings, Settings::default());
        insta::assert_debug_snapshot!(problems);
    }
}
