//! Settings to the controller's ConfigMap (user guide, "ConfigMaps"; internal/ingress/controller/config/config.go).

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value, json};

use crate::{
    EffectiveSettings, GatewayKind,
    nginx::{self, LOG_FORMAT},
    settings::size,
};

/// Name that its manifests give it.
pub(super) const NAME: &str = "ingress-nginx-controller";

/// Places for snippets, and their keys.
const SNIPPETS: [(&str, &str); 4] =
    [("main", "main-snippet"), ("http", "http-snippet"), ("server", "server-snippet"), ("location", "location-snippet")];

/// Its times are whole seconds. A fraction is rounded up: a shorter timeout than the one that was asked for could break a healthy state.
pub(super) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// The data as a merge patch: a key that is no longer there is taken away.
pub(super) fn patch(kind: GatewayKind, settings: &EffectiveSettings) -> Value {
    let said = data(kind, settings);
    let all = keys(settings).into_keys().chain(SNIPPETS.map(|(_, key)| key));
    let mut patch: Map<String, Value> = all.map(|key| (key.to_owned(), Value::Null)).collect();
    patch.extend(said.into_iter().map(|(key, value)| (key.to_owned(), value.into())));
    json!({ "data": patch })
}

/// A patch that says nothing, by which the controller looks at all objects again. `now` makes it differ from the last one.
pub(super) fn touch(now: SystemTime) -> Value {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    json!({ "metadata": { "annotations": { "gatelab.dev/touched": since.as_millis().to_string() } } })
}

/// What differs from its defaults, and the form of the access log that the lab reads. Without keys there: `tunnel-timeout` (`read-timeout`
/// holds), `retries.per-try-timeout`, `passive-checks`, `dns`; `backend-protocol`, `tls` and `rewrite-target` are annotations alone.
pub(super) fn data(kind: GatewayKind, settings: &EffectiveSettings) -> BTreeMap<&'static str, String> {
    let defaults = keys(&EffectiveSettings::defaults(kind));
    let mut data: BTreeMap<&'static str, String> =
        keys(settings).into_iter().filter(|(key, value)| defaults.get(key) != Some(value)).collect();
    data.insert("log-format-upstream", LOG_FORMAT.to_owned());
    for (place, key) in SNIPPETS {
        data.extend(settings.snippets.lines(kind, place).map(|lines| (key, lines.to_owned())));
    }
    data
}

fn keys(settings: &EffectiveSettings) -> BTreeMap<&'static str, String> {
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    let time = |duration: Duration| seconds(duration).to_string();
    let sources: Vec<String> = settings.allow_sources.iter().map(ToString::to_string).collect();
    BTreeMap::from([
        ("proxy-connect-timeout", time(settings.connect_timeout)),
        ("proxy-read-timeout", time(settings.read_timeout)),
        ("proxy-send-timeout", time(settings.send_timeout)),
        ("upstream-keepalive-timeout", time(settings.idle_timeout)),
        ("keep-alive", time(settings.client_idle_timeout)),
        ("proxy-next-upstream", nginx::reasons(&settings.retry_on)),
        ("proxy-next-upstream-tries", settings.retry_tries.to_string()),
        ("proxy-next-upstream-timeout", time(settings.retry_timeout)),
        ("retry-non-idempotent", settings.retry_non_idempotent.to_string()),
        ("upstream-keepalive-connections", settings.keepalive_connections.to_string()),
        ("upstream-keepalive-requests", settings.keepalive_requests.to_string()),
        ("upstream-keepalive-time", format!("{}s", seconds(settings.keepalive_time))),
        ("proxy-buffer-size", size::write(settings.response_header_buffer)),
        ("proxy-buffers-number", settings.buffer_count.to_string()),
        ("proxy-buffering", switch(settings.response_buffering)),
        ("proxy-request-buffering", switch(settings.request_buffering)),
        ("proxy-body-size", size::write(settings.request_body_limit)),
        ("worker-processes", if settings.workers == 0 { "auto".to_owned() } else { settings.workers.to_string() }),
        ("whitelist-source-range", sources.join(",")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Settings, ingress_nginx::KIND};

    fn of(yaml: &str) -> BTreeMap<&'static str, String> {
        data(KIND, &EffectiveSettings::defaults(KIND).overlaid(&Settings::from_yaml(yaml).unwrap()))
    }

    #[test]
    fn only_what_differs_is_said_and_times_are_rounded_up() {
        assert_eq!(of("").keys().copied().collect::<Vec<_>>(), ["log-format-upstream"]);
        let own = of("{connect-timeout: 500ms, read-timeout: 1s, idle-timeout: 2100ms, retries: {tries: 1, on: [error]}, \
                      buffers: {response-header: 8k}, snippets: {ingress-nginx: {http: 'a on;'}}}");
        let expected = [
            ("proxy-connect-timeout", "1"),
            ("proxy-read-timeout", "1"),
            ("upstream-keepalive-timeout", "3"),
            ("proxy-next-upstream", "error"),
            ("proxy-next-upstream-tries", "1"),
            ("proxy-buffer-size", "8k"),
            ("http-snippet", "a on;"),
        ];
        for (key, value) in expected {
            assert_eq!(own.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert_eq!(own.len(), expected.len() + 1, "{own:?}");
        let patch = patch(KIND, &EffectiveSettings::defaults(KIND));
        assert!(patch["data"]["proxy-read-timeout"].is_null() && patch["data"].as_object().unwrap().contains_key("http-snippet"));
        assert_eq!(patch["data"]["log-format-upstream"], LOG_FORMAT);
    }
}
