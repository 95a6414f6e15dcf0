//! The defaults that Contour ships.

use std::time::Duration;

use crate::settings::{BackendProtocol, EffectiveSettings, Snippets};

/// Contour, not Envoy Gateway, because it is the Envoy controller that follows Ingress objects (Envoy Gateway follows the Gateway API
/// only). Where Contour sets nothing, Envoy's own default holds.
pub(super) fn defaults() -> EffectiveSettings {
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
