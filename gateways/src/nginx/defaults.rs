//! The defaults that ingress-nginx ships.

use std::time::Duration;

use crate::settings::{BackendProtocol, EffectiveSettings, RetryOn, Snippets};

/// ingress-nginx: `NewDefault()` in internal/ingress/controller/config/config.go, constants at the head of that file; the same values
/// stand in its documentation (user-guide/nginx-configuration/configmap.md).
pub(crate) fn defaults() -> EffectiveSettings {
    EffectiveSettings {
        // ProxyConnectTimeout: 5
        connect_timeout: Duration::from_secs(5),
        // ProxyReadTimeout: 60
        read_timeout: Duration::from_secs(60),
        // ProxySendTimeout: 60
        send_timeout: Duration::from_secs(60),
        // UpstreamKeepaliveTimeout: 60
        idle_timeout: Duration::from_secs(60),
        // KeepAlive: 75
        client_idle_timeout: Duration::from_secs(75),
        // nginx: proxy_read_timeout holds for upgraded connections too
        tunnel_timeout: Duration::ZERO,
        // ProxyNextUpstreamTries: 3
        retry_tries: 3,
        // ProxyNextUpstream: "error timeout"
        retry_on: vec![RetryOn::Error, RetryOn::Timeout],
        // ProxyNextUpstreamTimeout: 0
        retry_timeout: Duration::ZERO,
        // nginx has no such thing
        retry_per_try_timeout: Duration::ZERO,
        // RetryNonIdempotent: false (nginx's own default since 1.9.13)
        retry_non_idempotent: false,
        // UpstreamKeepaliveConnections: 320
        keepalive_connections: 320,
        // UpstreamKeepaliveRequests: 10000
        keepalive_requests: 10_000,
        // UpstreamKeepaliveTime: "1h"
        keepalive_time: Duration::from_secs(3600),
        // max_fails 0 (the Lua balancer has no passive checks); fail_timeout, nginx' own: 10 s
        passive_check_failures: 0,
        passive_check_ejection: Duration::from_secs(10),
        // ProxyBufferSize: "4k"
        response_header_buffer: 4096,
        // ProxyBuffersNumber: 4
        buffer_count: 4,
        // ProxyBuffering: "off"
        response_buffering: false,
        // ProxyRequestBuffering: "on"
        request_buffering: true,
        // annotation backend-protocol: "HTTP"
        backend_protocol: BackendProtocol::Http,
        // annotation proxy-ssl-verify: "off"
        tls_verify: false,
        tls_ca_secret: None,
        tls_name: None,
        // resolver_timeout, nginx' own: 30 s
        dns_timeout: Duration::from_secs(30),
        // buildResolvers() in internal/ingress/controller/template: valid=30s
        dns_valid: Duration::from_secs(30),
        // --sync-rate-limit 0.3 a second (internal/ingress/controller/flags): one sync in 3.3 s, the first at once. It bounds every
        // sync there, reload or not (syncIngress() takes from the rate limiter first), so it bounds ours, which are all reloads.
        sync_delay: Duration::from_millis(3333),
        // WorkerProcesses: number of CPUs
        workers: 0,
        // ProxyBodySize: "1m"
        request_body_limit: 1024 * 1024,
        rewrite_target: None,
        allow_sources: Vec::new(),
        snippets: Snippets::default(),
    }
}
