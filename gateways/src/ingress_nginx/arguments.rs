//! The controller's command line, as in its published manifests (deploy/static/provider/cloud/deploy.yaml).

use std::time::Duration;

use super::config_map;
use crate::{
    EffectiveSettings, GatewayKind,
    manifests::{GATEWAY_NAMESPACE, INGRESS_CLASS},
};

/// Lease by which several controllers agree on one that writes statuses.
pub(super) const ELECTION: &str = "ingress-nginx-leader";
/// Where its Lua takes and tells the dynamic configuration (`--status-port`'s default).
pub(super) const STATUS_PORT: u16 = 10246;
/// The agent answers `/healthz` at the controller's usual port.
const HEALTH_PORT: u16 = 10255;

/// Two lists within one second of the clock are one to a worker that took the first: the balancer knows them by `ngx.time()`
/// (`raw_backends_last_synced_at` in configuration.lua), and such a worker keeps pods that are gone until the next change. Its own delay of
/// 3.3 s hides that; a lab's must be long enough, too, with room for a reload before the list is handed over.
const LEAST_DELAY: Duration = Duration::from_secs(2);

/// The time between two of its syncs.
pub(super) fn sync_delay(settings: &EffectiveSettings) -> Duration {
    settings.sync_delay.max(LEAST_DELAY)
}

/// Where nginx listens.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub http_port: u16,
    pub https_port: u16,
}

/// `sync_delay`: as [`sync_delay`] has it.
pub(super) fn arguments(kind: GatewayKind, sync_delay: Duration, layout: &Layout) -> Vec<String> {
    vec![
        format!("--publish-service={GATEWAY_NAMESPACE}/gateway"),
        format!("--election-id={ELECTION}"),
        format!("--controller-class={}", kind.controller()),
        format!("--ingress-class={INGRESS_CLASS}"),
        format!("--configmap={GATEWAY_NAMESPACE}/{}", config_map::NAME),
        format!("--http-port={}", layout.http_port),
        format!("--https-port={}", layout.https_port),
        format!("--healthz-port={HEALTH_PORT}"),
        format!("--status-port={STATUS_PORT}"),
        // Syncs a second; its default is 0.3.
        format!("--sync-rate-limit={:.4}", 1.0 / sync_delay.as_secs_f64()),
        // Time for a monitor to collect its last metrics; nobody does here.
        "--post-shutdown-grace-period=0".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress_nginx::KIND;

    #[test]
    fn it_is_started_as_its_manifests_start_it() {
        let layout = Layout { http_port: 80, https_port: 443 };
        let text = |delay| arguments(KIND, Duration::from_millis(delay), &layout).join("\n");
        insta::assert_snapshot!(text(3333));
        let delay = |milliseconds| {
            let asked = Duration::from_millis(milliseconds);
            sync_delay(&EffectiveSettings { sync_delay: asked, ..EffectiveSettings::defaults(KIND) }).as_millis()
        };
        assert_eq!([200, 3333].map(delay), [2000, 3333], "two lists in one second leave a worker with the first");
    }
}
