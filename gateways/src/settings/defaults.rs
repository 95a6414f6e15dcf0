//! How settings are laid over the defaults that a gateway's folder has.

use super::{EffectiveSettings, Settings};
use crate::GatewayKind;

impl EffectiveSettings {
    /// The defaults for a gateway before anybody set anything.
    pub fn defaults(kind: GatewayKind) -> Self {
        kind.adapter().defaults()
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
            self.snippets.overlay(snippets);
        }
        self
    }
}
