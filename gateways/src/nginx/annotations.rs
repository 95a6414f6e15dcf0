//! The annotations of ingress-nginx.

use super::KIND;
use crate::settings::{
    Annotations, BackendProtocol, BufferSettings, Overrides, RetryOn, RetrySettings, RewriteTarget, Settings, Snippets, TlsSettings, size,
    value::{networks, number, seconds, switch},
};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

pub(crate) fn of_ingress(annotations: &Annotations, overrides: &mut Overrides) {
    overrides.read(annotations, PREFIX, read);
}

/// `ssl-redirect` (on unless switched off, when the host has a certificate) and `force-ssl-redirect`.
pub(crate) fn redirects_to_https(annotations: &Annotations, has_certificate: bool) -> bool {
    let says = |key: &str, value: &str| annotations.get(&format!("{PREFIX}{key}")).is_some_and(|actual| actual == value);
    says("force-ssl-redirect", "true") || (has_certificate && !says("ssl-redirect", "false"))
}

/// User guide of ingress-nginx, "Annotations". Its times are whole seconds without a unit.
fn read(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
    fn retries(settings: &mut Settings) -> &mut RetrySettings {
        settings.retries.get_or_insert_default()
    }
    fn buffers(settings: &mut Settings) -> &mut BufferSettings {
        settings.buffers.get_or_insert_default()
    }
    fn tls(settings: &mut Settings) -> &mut TlsSettings {
        settings.tls.get_or_insert_default()
    }
    fn snippets(settings: &mut Settings) -> &mut Snippets {
        settings.snippets.get_or_insert_with(Snippets::default)
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
        "configuration-snippet" => snippets(settings).add(KIND, "location", value),
        "server-snippet" => snippets(settings).add(KIND, "server", value),
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
