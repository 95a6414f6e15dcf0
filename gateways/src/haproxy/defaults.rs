//! The defaults that HAProxy Ingress ships.

use std::time::Duration;

use crate::settings::{BackendProtocol, EffectiveSettings, RetryOn, Snippets};

/// HAProxy Ingress (jcmoraisjr/haproxy-ingress): `createDefaults()` in pkg/converters/ingress/defaults.go; the same values stand in its
/// documentation (configuration/keys). Where it sets nothing, HAProxy's own default holds (Configuration Manual).
pub(super) fn defaults() -> EffectiveSettings {
    EffectiveSettings {
        // timeout-connect: 5s
        connect_timeout: Duration::from_secs(5),
        // timeout-server: 50s
        read_timeout: Duration::from_secs(50),
        // HAProxy's `timeout server` is for both directions
        send_timeout: Duration::ZERO,
        // pool-purge-delay, HAProxy's own: 5s
        idle_timeout: Duration::from_secs(5),
        // timeout-keep-alive: 1m
        client_idle_timeout: Duration::from_secs(60),
        // timeout-tunnel: 1h
        tunnel_timeout: Duration::from_secs(3600),
        // `retries`, HAProxy's own: 3 after the first
        retry_tries: 4,
        // `retry-on`, HAProxy's own: conn-failure
        retry_on: vec![RetryOn::ConnectFailure],
        retry_timeout: Duration::ZERO,
        retry_per_try_timeout: Duration::ZERO,
        retry_non_idempotent: false,
        // pool-max-conn, HAProxy's own: no limit
        keepalive_connections: u32::MAX,
        // max-reuse, HAProxy's own: no limit
        keepalive_requests: 0,
        keepalive_time: Duration::ZERO,
        // no `observe`; back after two health checks
        passive_check_failures: 0,
        passive_check_ejection: Duration::from_secs(2),
        // tune.bufsize, HAProxy's own: 16k
        response_header_buffer: 16 * 1024,
        buffer_count: 0,
        response_buffering: false,
        request_buffering: false,
        // backend-protocol: h1
        backend_protocol: BackendProtocol::Http,
        // no secure-verify-ca-secret: not verified
        tls_verify: false,
        tls_ca_secret: None,
        tls_name: None,
        // dns-timeout-retry: 1s
        dns_timeout: Duration::from_secs(1),
        // dns-hold-valid: 1s
        dns_valid: Duration::from_secs(1),
        // --rate-limit-update 0.5 a second
        sync_delay: Duration::from_secs(2),
        // nbthread: 2
        workers: 2,
        // proxy-body-size: unset
        request_body_limit: 0,
        rewrite_target: None,
        allow_sources: Vec::new(),
        snippets: Snippets::default(),
    }
}
