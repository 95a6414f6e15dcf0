//! One vocabulary for what a gateway can be told, mapped by each gateway's folder to its own configuration.
//!
//! [`Settings`] is what a person writes (everything optional); [`EffectiveSettings`] is what holds for one backend after the
//! well-known controller's defaults, the ConfigMap `gateway-settings` and the annotations of its Ingress and Service were laid over
//! each other, in that order.

mod annotations;
mod defaults;
pub(crate) mod duration;
mod network;
mod rewrite;
mod snippets;
pub(crate) mod value;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub(crate) use annotations::Overrides;
pub use annotations::{AnnotationProblem, ServicePort, ingress_overrides, service_overrides};
pub use network::Network;
pub use rewrite::RewriteTarget;
pub(crate) use rewrite::pattern;
pub use snippets::Snippets;
pub(crate) use snippets::{SnippetForm, SnippetPlace};

/// What a person may set. Strict: an unknown key is an error. Durations are written `500ms`, `5s`, `1m30s`, `1h`; sizes `4k`, `1m`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// How long a connection to a backend may take to stand. nginx: `proxy_connect_timeout`; Envoy: the cluster's `connect_timeout`.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// How long the gateway waits for a backend's answer. nginx: `proxy_read_timeout`, between two reads; Envoy: the route's `timeout`,
    /// for the whole answer, counted from the end of the request (0 switches it off).
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub read_timeout: Option<Duration>,
    /// nginx: `proxy_send_timeout`, between two writes to the backend. Envoy has no such timeout: it takes no notice.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub send_timeout: Option<Duration>,
    /// How long an idle connection to a backend is kept for reuse. nginx: the upstream's `keepalive_timeout`; Envoy: the cluster's
    /// `common_http_protocol_options.idle_timeout`.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// How long an idle client connection is kept. nginx: `keepalive_timeout`; Envoy: the connection manager's `idle_timeout`.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub client_idle_timeout: Option<Duration>,
    /// How long a connection that has been upgraded (WebSocket) may be silent. HAProxy: `timeout tunnel`; Envoy: the route's
    /// `idle_timeout`, which holds for every stream. nginx has the read timeout for that, Traefik nothing.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub tunnel_timeout: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetrySettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<KeepaliveSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffers: Option<BufferSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive_checks: Option<PassiveCheckSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_protocol: Option<BackendProtocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsSettings>,
    /// At least this long lies between two changes of the running configuration. ingress-nginx: `--sync-rate-limit`, as a period.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub sync_delay: Option<Duration>,
    /// nginx: `worker_processes`; Envoy: `--concurrency`. 0: one for each processor. Envoy reads it once, when it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// Largest request body. nginx: `client_max_body_size` (413 above it); 0: no limit. Envoy streams bodies and takes no notice.
    #[serde(with = "size::optional", skip_serializing_if = "Option::is_none")]
    pub request_body_limit: Option<u64>,
    /// What the matched path becomes on its way to the backend. nginx: `rewrite` of the whole URI, as ingress-nginx' `rewrite-target`;
    /// HAProxy and Envoy put it in place of the rule's path. Traefik does this by a middleware only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite_target: Option<RewriteTarget>,
    /// Networks that requests may come from, all others get 403. Empty: any. Traefik does this by a middleware only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_sources: Option<Vec<Network>>,
    /// Raw configuration, put in as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snippets: Option<Snippets>,
}

/// When and how often a request is tried again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RetrySettings {
    /// Tries in all, the first included; 1: never again. nginx: `proxy_next_upstream_tries` (there 0 means no limit); Envoy:
    /// `num_retries` is one less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tries: Option<u32>,
    /// What is retried; an empty list: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<RetryOn>>,
    /// No new try after this long. nginx: `proxy_next_upstream_timeout`, 0: no limit. Envoy bounds all tries by the read timeout.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Envoy: `per_try_timeout`. nginx applies connect and read timeouts to each try anyway.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Duration>,
    /// nginx: also retry POST, LOCK and PATCH once they were sent (`non_idempotent`). Envoy never looks at the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_idempotent: Option<bool>,
}

/// Reasons to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// Connection refused, reset or closed before the answer's header. nginx: `error`; Envoy: `connect-failure,refused-stream,reset`.
    Error,
    /// Connecting or waiting for the header took too long. nginx: `timeout`; Envoy: `connect-failure`, and `reset` for tries that ran
    /// into their per-try timeout.
    Timeout,
    /// An answer that is no HTTP. nginx: `invalid_header`; Envoy: `reset` (a protocol error resets the stream).
    InvalidHeader,
    /// Only what failed before the request was sent. Envoy: `connect-failure`. nginx cannot tell them apart: like `error`.
    ConnectFailure,
    #[serde(rename = "http-403")]
    Http403,
    #[serde(rename = "http-404")]
    Http404,
    #[serde(rename = "http-429")]
    Http429,
    #[serde(rename = "http-500")]
    Http500,
    #[serde(rename = "http-502")]
    Http502,
    #[serde(rename = "http-503")]
    Http503,
    #[serde(rename = "http-504")]
    Http504,
}

/// The pool of idle connections to backends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct KeepaliveSettings {
    /// Idle connections kept for each upstream by each worker; 0: every request has its own connection. nginx: `keepalive`. Envoy knows
    /// no such bound: there 0 means one request a connection and any other number changes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Requests after which a connection is closed. nginx: `keepalive_requests`; Envoy: `max_requests_per_connection` (0: no limit).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Age after which a connection is not used again. nginx: `keepalive_time`; Envoy: `max_connection_duration` (0: no limit).
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub time: Option<Duration>,
}

/// Taking a server out of the balance for how it answers the requests of clients. None of the controllers does unless it is told to;
/// Traefik cannot from an Ingress.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PassiveCheckSettings {
    /// Failures that take a server out; 0: it stays in. nginx: `max_fails`, of those within the ejection time; Envoy:
    /// `outlier_detection.consecutive_gateway_failure`; HAProxy: `observe layer7 error-limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// How long it is out. nginx: `fail_timeout`, whole seconds; Envoy: `base_ejection_time`, longer with each time; HAProxy:
    /// `rise`, in health checks of 2s each, at least so long.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub ejection_time: Option<Duration>,
}

/// Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BufferSettings {
    /// For the header of a backend's answer. nginx: `proxy_buffer_size`; Envoy: `max_response_headers_kb`, rounded up to 1 KiB.
    #[serde(with = "size::optional", skip_serializing_if = "Option::is_none")]
    pub response_header: Option<u64>,
    /// nginx: number of `proxy_buffers`, each of the above size. Envoy: no notice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// nginx: `proxy_buffering`. Envoy always streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_buffering: Option<bool>,
    /// nginx: `proxy_request_buffering`. Envoy always streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_buffering: Option<bool>,
}

/// What the gateway speaks to a backend; the names of ingress-nginx's `backend-protocol`, and `H2C`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendProtocol {
    /// HTTP/1.1
    #[serde(rename = "HTTP")]
    Http,
    /// HTTP/1.1 over TLS
    #[serde(rename = "HTTPS")]
    Https,
    /// gRPC over cleartext HTTP/2
    #[serde(rename = "GRPC")]
    Grpc,
    /// gRPC over TLS
    #[serde(rename = "GRPCS")]
    Grpcs,
    /// HTTP/2 in cleartext by prior knowledge. nginx speaks HTTP/2 to backends through `grpc_pass` only, so there it equals `GRPC`.
    #[serde(rename = "H2C")]
    H2c,
}

/// TLS towards backends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TlsSettings {
    /// Whether the backend's certificate must be valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// Secret with `ca.crt`: `namespace/name`, or `name` in the Ingress' namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<String>,
    /// Name sent as SNI and, with verification, the one that the certificate must carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Looking up the names of ExternalName Services.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DnsSettings {
    /// How long a lookup may take. nginx: `resolver_timeout`; HAProxy: `timeout resolve` and `timeout retry` of the `resolvers` section; Envoy:
    /// c-ares' `query_timeout_seconds`, whole seconds, with one try. Traefik's lookups are part of its dial timeout.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How long an answer is used. nginx: `valid` of `resolver`, whole seconds; HAProxy: `hold valid`; Envoy: the cluster's `dns_refresh_rate`. Traefik
    /// looks a name up for each new connection.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub valid: Option<Duration>,
}

/// Everything decided: what holds for one backend. The fields mean what the ones of [`Settings`] mean; zero durations are "no limit"
/// where [`Settings`] says so.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EffectiveSettings {
    #[serde(with = "duration::required")]
    pub connect_timeout: Duration,
    #[serde(with = "duration::required")]
    pub read_timeout: Duration,
    #[serde(with = "duration::required")]
    pub send_timeout: Duration,
    #[serde(with = "duration::required")]
    pub idle_timeout: Duration,
    #[serde(with = "duration::required")]
    pub client_idle_timeout: Duration,
    pub tunnel_timeout: Duration,
    pub retry_tries: u32,
    pub retry_on: Vec<RetryOn>,
    #[serde(with = "duration::required")]
    pub retry_timeout: Duration,
    #[serde(with = "duration::required")]
    pub retry_per_try_timeout: Duration,
    pub retry_non_idempotent: bool,
    pub keepalive_connections: u32,
    pub keepalive_requests: u32,
    #[serde(with = "duration::required")]
    pub keepalive_time: Duration,
    pub passive_check_failures: u32,
    #[serde(with = "duration::required")]
    pub passive_check_ejection: Duration,
    pub response_header_buffer: u64,
    pub buffer_count: u32,
    pub response_buffering: bool,
    pub request_buffering: bool,
    pub backend_protocol: BackendProtocol,
    pub tls_verify: bool,
    pub tls_ca_secret: Option<String>,
    pub tls_name: Option<String>,
    #[serde(with = "duration::required")]
    pub dns_timeout: Duration,
    #[serde(with = "duration::required")]
    pub dns_valid: Duration,
    #[serde(with = "duration::required")]
    pub sync_delay: Duration,
    pub workers: u32,
    pub request_body_limit: u64,
    pub rewrite_target: Option<RewriteTarget>,
    pub allow_sources: Vec<Network>,
    pub snippets: Snippets,
}

/// Settings that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("the gateway's settings are not valid: {0}")]
    Syntax(String),
}

impl Settings {
    /// Reads settings from YAML (the value of `settings.yaml` in ConfigMap `gateway-settings`). Empty text sets nothing.
    ///
    /// # Errors
    /// [`SettingsError::Syntax`] with line and column for unknown keys, wrong types and malformed durations or sizes.
    pub fn from_yaml(text: &str) -> Result<Self, SettingsError> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| SettingsError::Syntax(error.to_string()))
    }

    /// Writes settings as the YAML that [`Settings::from_yaml`] reads.
    ///
    /// # Errors
    /// [`SettingsError::Syntax`] when a raw snippet holds something that YAML cannot carry.
    pub fn to_yaml(&self) -> Result<String, SettingsError> {
        serde_saphyr::to_string(self).map_err(|error| SettingsError::Syntax(error.to_string()))
    }
}

/// The annotations of one object.
pub type Annotations = BTreeMap<String, String>;

pub(crate) mod size;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_set_is_read_and_written_back() {
        let text = "{connect-timeout: 500ms, read-timeout: 1s, send-timeout: 2s, idle-timeout: 3s, client-idle-timeout: 10s, tunnel-timeout: 20s, \
             keepalive: {connections: 7, requests: 8, time: 9s}, passive-checks: {failures: 1, ejection-time: 10s}, \
             retries: {tries: 2, on: [error, http-502], timeout: 4s, per-try-timeout: 250ms, non-idempotent: true}, \
             buffers: {response-header: 8k, count: 4, response-buffering: true}, backend-protocol: HTTPS, \
             tls: {verify: true, ca-secret: shop/ca, name: shop.internal}, sync-delay: 100ms, workers: 1, request-body-limit: 2m, \
             snippets: {nginx: {location: 'gzip on;'}, envoy: {cluster: {lb_policy: RANDOM}}}}";
        let settings = Settings::from_yaml(text).unwrap();
        assert_eq!(Settings::from_yaml(&settings.to_yaml().unwrap()).unwrap(), settings);
        insta::assert_snapshot!(settings.to_yaml().unwrap());
    }

    #[test]
    fn mistakes_are_explained() {
        let mistakes: Vec<String> = ["conect-timeout: 1s", "read-timeout: 5", "retries: {on: [errors]}", "backend-protocol: https", "- 1"]
            .iter()
            .map(|text| Settings::from_yaml(text).unwrap_err().to_string())
            .collect();
        insta::assert_snapshot!(mistakes.join("\n---\n"));
    }

    #[test]
    fn nothing_is_valid() {
        for text in ["", "\n", "# only a comment\n", "{}"] {
            assert_eq!(Settings::from_yaml(text).unwrap(), Settings::default(), "{text:?}");
        }
    }
}
