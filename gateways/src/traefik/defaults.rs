//! The defaults that Traefik ships.

use std::time::Duration;

use crate::settings::{BackendProtocol, EffectiveSettings, Snippets};

/// Traefik's own defaults, which its Helm chart leaves as they are (reference, "Install configuration"; pkg/config/static).
pub(super) fn defaults() -> EffectiveSettings {
    EffectiveSettings {
        // serversTransport.forwardingTimeouts.dialTimeout: 30s
        connect_timeout: Duration::from_secs(30),
        // serversTransport.forwardingTimeouts.responseHeaderTimeout: 0, no limit
        read_timeout: Duration::ZERO,
        send_timeout: Duration::ZERO,
        // serversTransport.forwardingTimeouts.idleConnTimeout: 90s
        idle_timeout: Duration::from_secs(90),
        // respondingTimeouts.idleTimeout: 180s
        client_idle_timeout: Duration::from_secs(180),
        // Traefik has no such timeout
        tunnel_timeout: Duration::ZERO,
        // no retry middleware
        retry_tries: 1,
        retry_on: Vec::new(),
        retry_timeout: Duration::ZERO,
        retry_per_try_timeout: Duration::ZERO,
        retry_non_idempotent: false,
        // serversTransport.maxIdleConnsPerHost: 200
        keepalive_connections: 200,
        keepalive_requests: 0,
        keepalive_time: Duration::ZERO,
        // its passiveHealthCheck is for services of its own resources
        passive_check_failures: 0,
        passive_check_ejection: Duration::ZERO,
        response_header_buffer: 0,
        buffer_count: 0,
        response_buffering: false,
        request_buffering: false,
        backend_protocol: BackendProtocol::Http,
        // serversTransport.insecureSkipVerify: false
        tls_verify: true,
        tls_ca_secret: None,
        tls_name: None,
        dns_timeout: Duration::ZERO,
        dns_valid: Duration::ZERO,
        // providers.providersThrottleDuration: 2s
        sync_delay: Duration::from_secs(2),
        workers: 0,
        request_body_limit: 0,
        rewrite_target: None,
        allow_sources: Vec::new(),
        snippets: Snippets::default(),
    }
}
