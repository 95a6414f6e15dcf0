//! The defaults that the well-known controllers ship, and how settings are laid over them.

use std::time::Duration;

use super::{
    BackendProtocol, EffectiveSettings, EnvoySnippets, HaproxySnippets, NginxSnippets, RetryOn, Settings, Snippets, TraefikSnippets,
};
use crate::GatewayKind;

impl EffectiveSettings {
    /// The defaults for a gateway before anybody set anything.
    pub fn defaults(kind: GatewayKind) -> Self {
        match kind {
            GatewayKind::Nginx => ingress_nginx(),
            GatewayKind::Envoy => contour(),
            GatewayKind::Haproxy => haproxy_ingress(),
            GatewayKind::Traefik => traefik(),
        }
    }

    /// Lays settings over these: what is set wins, list by list and field by field; snippets add up, one behind the other.
    #[must_use]
    pub fn overlaid(mut self, settings: &Settings) -> Self {
        fn set<T: Clone>(place: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                place.clone_from(value);
            }
        }
        set(&mut self.connect_timeout, settings.connect_timeout.as_ref());
        set(&mut self.read_timeout, settings.read_timeout.as_ref());
        set(&mut self.send_timeout, settings.send_timeout.as_ref());
        set(&mut self.idle_timeout, settings.idle_timeout.as_ref());
        set(&mut self.client_idle_timeout, settings.client_idle_timeout.as_ref());
        set(&mut self.tunnel_timeout, settings.tunnel_timeout.as_ref());
        if let Some(retries) = &settings.retries {
            set(&mut self.retry_tries, retries.tries.as_ref());
            set(&mut self.retry_on, retries.on.as_ref());
            set(&mut self.retry_timeout, retries.timeout.as_ref());
            set(&mut self.retry_per_try_timeout, retries.per_try_timeout.as_ref());
            set(&mut self.retry_non_idempotent, retries.non_idempotent.as_ref());
        }
        if let Some(keepalive) = &settings.keepalive {
            set(&mut self.keepalive_connections, keepalive.connections.as_ref());
            set(&mut self.keepalive_requests, keepalive.requests.as_ref());
            set(&mut self.keepalive_time, keepalive.time.as_ref());
        }
        if let Some(checks) = &settings.passive_checks {
            set(&mut self.passive_check_failures, checks.failures.as_ref());
            set(&mut self.passive_check_ejection, checks.ejection_time.as_ref());
        }
        if let Some(buffers) = &settings.buffers {
            set(&mut self.response_header_buffer, buffers.response_header.as_ref());
            set(&mut self.buffer_count, buffers.count.as_ref());
            set(&mut self.response_buffering, buffers.response_buffering.as_ref());
            set(&mut self.request_buffering, buffers.request_buffering.as_ref());
        }
        set(&mut self.backend_protocol, settings.backend_protocol.as_ref());
        if let Some(tls) = &settings.tls {
            set(&mut self.tls_verify, tls.verify.as_ref());
            if tls.ca_secret.is_some() {
                self.tls_ca_secret.clone_from(&tls.ca_secret);
            }
            if tls.name.is_some() {
                self.tls_name.clone_from(&tls.name);
            }
        }
        if let Some(dns) = &settings.dns {
            set(&mut self.dns_timeout, dns.timeout.as_ref());
            set(&mut self.dns_valid, dns.valid.as_ref());
        }
        set(&mut self.sync_delay, settings.sync_delay.as_ref());
        set(&mut self.workers, settings.workers.as_ref());
        set(&mut self.request_body_limit, settings.request_body_limit.as_ref());
        if settings.rewrite_target.is_some() {
            self.rewrite_target.clone_from(&settings.rewrite_target);
        }
        set(&mut self.allow_sources, settings.allow_sources.as_ref());
        if let Some(snippets) = &settings.snippets {
            overlay_snippets(&mut self.snippets, snippets);
        }
        self
    }
}

fn overlay_snippets(place: &mut Snippets, added: &Snippets) {
    fn append(place: &mut Option<String>, added: Option<&String>) {
        if let Some(added) = added {
            match place {
                Some(text) => {
                    text.push('\n');
                    text.push_str(added);
                }
                None => *place = Some(added.clone()),
            }
        }
    }
    if let Some(NginxSnippets { main, http, server, location, upstream }) = &added.nginx {
        let nginx = place.nginx.get_or_insert_default();
        append(&mut nginx.main, main.as_ref());
        append(&mut nginx.http, http.as_ref());
        append(&mut nginx.server, server.as_ref());
        append(&mut nginx.location, location.as_ref());
        append(&mut nginx.upstream, upstream.as_ref());
    }
    if let Some(HaproxySnippets { global, defaults, backend }) = &added.haproxy {
        let haproxy = place.haproxy.get_or_insert_default();
        append(&mut haproxy.global, global.as_ref());
        append(&mut haproxy.defaults, defaults.as_ref());
        append(&mut haproxy.backend, backend.as_ref());
    }
    if let Some(TraefikSnippets { dynamic: Some(dynamic) }) = &added.traefik {
        place.traefik.get_or_insert_default().dynamic = Some(dynamic.clone());
    }
    if let Some(EnvoySnippets { cluster, route, connection_manager }) = &added.envoy {
        let envoy = place.envoy.get_or_insert_default();
        for (place, added) in
            [(&mut envoy.cluster, cluster), (&mut envoy.route, route), (&mut envoy.connection_manager, connection_manager)]
        {
            if added.is_some() {
                place.clone_from(added);
            }
        }
    }
}

/// ingress-nginx: `NewDefault()` in internal/ingress/controller/config/config.go, constants at the head of that file; the same values
/// stand in its documentation (user-guide/nginx-configuration/configmap.md).
fn ingress_nginx() -> EffectiveSettings {
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

/// Contour, not Envoy Gateway, because it is the Envoy controller that follows Ingress objects (Envoy Gateway follows the Gateway API
/// only). Where Contour sets nothing, Envoy's own default holds.
fn contour() -> EffectiveSettings {
    EffectiveSettings {
        // clusterDefaults() in internal/envoy/v3/cluster.go: 2 s
        connect_timeout: Duration::from_secs(2),
        // Contour leaves RouteAction.timeout unset: Envoy's 15 s (config/route/v3/route_components.proto)
        read_timeout: Duration::from_secs(15),
        // Envoy has no such timeout
        send_timeout: Duration::ZERO,
        // Contour leaves the cluster's idle_timeout unset: Envoy's 1 h (config/core/v3/protocol.proto, HttpProtocolOptions)
        idle_timeout: Duration::from_secs(3600),
        // `timeouts.connection-idle-timeout: 60s` in Contour's configuration file
        client_idle_timeout: Duration::from_secs(60),
        // Contour leaves stream_idle_timeout unset: Envoy's 5 min (HttpConnectionManager)
        tunnel_timeout: Duration::from_secs(300),
        // no retry policy unless an Ingress asks for one (projectcontour.io/retry-on); then num-retries is 1
        retry_tries: 2,
        retry_on: Vec::new(),
        retry_timeout: Duration::ZERO,
        // projectcontour.io/per-try-timeout: unset
        retry_per_try_timeout: Duration::ZERO,
        retry_non_idempotent: true,
        // Envoy bounds connections (circuit breaker, 1024), not idle ones
        keepalive_connections: 1024,
        // max_requests_per_connection: unset
        keepalive_requests: 0,
        // max_connection_duration: unset
        keepalive_time: Duration::ZERO,
        // no outlier_detection; base_ejection_time, Envoy's own: 30 s
        passive_check_failures: 0,
        passive_check_ejection: Duration::from_secs(30),
        // Envoy's max_response_headers_kb: 60 KiB unless set
        response_header_buffer: 60 * 1024,
        buffer_count: 0,
        response_buffering: false,
        request_buffering: false,
        backend_protocol: BackendProtocol::Http,
        // Contour verifies only where a HTTPProxy names a CA; an Ingress cannot
        tls_verify: false,
        tls_ca_secret: None,
        tls_name: None,
        dns_timeout: Duration::ZERO,
        // dns_refresh_rate, Envoy's own: 5 s
        dns_valid: Duration::from_secs(5),
        // holdoffDelay in cmd/contour/serve.go: 100 ms (and at most 500 ms)
        sync_delay: Duration::from_millis(100),
        // Envoy's --concurrency: one worker for each hardware thread
        workers: 0,
        request_body_limit: 0,
        rewrite_target: None,
        allow_sources: Vec::new(),
        snippets: Snippets::default(),
    }
}

/// HAProxy Ingress (jcmoraisjr/haproxy-ingress): `createDefaults()` in pkg/converters/ingress/defaults.go; the same values stand in its
/// documentation (configuration/keys). Where it sets nothing, HAProxy's own default holds (Configuration Manual).
fn haproxy_ingress() -> EffectiveSettings {
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

/// Traefik's own defaults, which its Helm chart leaves as they are (reference, "Install configuration"; pkg/config/static).
fn traefik() -> EffectiveSettings {
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
