//! Settings to Traefik's static configuration, as command-line arguments (Traefik's reference, "Install configuration").

use std::{path::PathBuf, time::Duration};

use super::KIND;
use crate::{EffectiveSettings, configuration::digest};

/// Where Traefik listens.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Folder for the file provider's configuration and the certificate of unknown names.
    pub state: PathBuf,
    pub http_port: u16,
    pub https_port: u16,
    /// Port of Traefik's API on the pod's loopback.
    pub api_port: u16,
}

/// The file that Traefik's file provider reads. It is named after what the settings put into it, so that a change is a change of the
/// arguments too: Traefik then starts anew, and what it has read needs no further proof.
pub(super) fn dynamic_file(settings: &EffectiveSettings) -> String {
    match settings.snippets.object(KIND, "dynamic") {
        None => "dynamic.yaml".to_owned(),
        Some(dynamic) => {
            format!("dynamic-{}.yaml", &digest(&dynamic.to_string())[..16])
        }
    }
}

fn time(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// `ca`: PEM of the authorities for backends' certificates.
pub(super) fn arguments(settings: &EffectiveSettings, ca: Option<&str>, layout: &Layout) -> Vec<String> {
    let timeouts = "--serversTransport.forwardingTimeouts";
    let mut arguments = vec![
        "--global.checkNewVersion=false".to_owned(),
        "--global.sendAnonymousUsage=false".to_owned(),
        "--providers.kubernetesIngress=true".to_owned(),
        // Off by default; without it there would be nothing to see
        "--providers.kubernetesIngress.allowExternalNameServices=true".to_owned(),
        // For the default certificate (`process.rs`) and the settings' snippet
        format!("--providers.file.filename={}", layout.state.join(dynamic_file(settings)).display()),
        "--providers.file.watch=false".to_owned(),
        format!("--providers.providersThrottleDuration={}", time(settings.sync_delay)),
        format!("--entryPoints.web.address=:{}", layout.http_port),
        format!("--entryPoints.websecure.address=:{}", layout.https_port),
        "--entryPoints.websecure.http.tls=true".to_owned(),
        format!("--entryPoints.traefik.address=127.0.0.1:{}", layout.api_port),
        "--api.insecure=true".to_owned(),
        "--api.dashboard=false".to_owned(),
        "--ping=true".to_owned(),
        "--log.level=DEBUG".to_owned(),
        "--log.format=json".to_owned(),
        "--accessLog=true".to_owned(),
        "--accessLog.format=json".to_owned(),
        "--accessLog.fields.defaultMode=keep".to_owned(),
        "--accessLog.fields.headers.names.X-Request-Id=keep".to_owned(),
        format!("{timeouts}.dialTimeout={}", time(settings.connect_timeout)),
        format!("{timeouts}.responseHeaderTimeout={}", time(settings.read_timeout)),
        format!("{timeouts}.idleConnTimeout={}", time(settings.idle_timeout)),
        // Go's transport: a negative number keeps no idle connection
        format!(
            "--serversTransport.maxIdleConnsPerHost={}",
            if settings.keepalive_connections == 0 { -1 } else { i64::from(settings.keepalive_connections) }
        ),
        format!("--serversTransport.insecureSkipVerify={}", !settings.tls_verify),
    ];
    if let Some(ca) = ca {
        arguments.push(format!("--serversTransport.rootCAs={ca}"));
    }
    for entry_point in ["web", "websecure"] {
        let timeout = time(settings.client_idle_timeout);
        arguments.push(format!("--entryPoints.{entry_point}.transport.respondingTimeouts.idleTimeout={timeout}"));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[test]
    fn settings_become_arguments() {
        let layout = Layout { state: "/state".into(), http_port: 80, https_port: 443, api_port: 9901 };
        let settings = Settings::from_yaml("{connect-timeout: 500ms, read-timeout: 1s, idle-timeout: 3s, tls: {verify: false}}").unwrap();
        let text = |settings: &EffectiveSettings| arguments(settings, None, &layout).join("\n");
        let defaults = EffectiveSettings::defaults(KIND);
        insta::assert_snapshot!(text(&defaults));
        let own = text(&defaults.clone().overlaid(&settings));
        assert!(arguments(&EffectiveSettings::defaults(KIND), Some("PEM"), &layout).contains(&"--serversTransport.rootCAs=PEM".to_owned()));
        for argument in ["dialTimeout=500ms", "responseHeaderTimeout=1000ms", "idleConnTimeout=3000ms", "insecureSkipVerify=true"] {
            assert!(own.contains(argument), "{argument} is not in\n{own}");
        }
        let file = |size: u32| {
            let snippet = format!("{{http: {{middlewares: {{a: {{buffering: {{memRequestBodyBytes: {size}}}}}}}}}}}");
            let settings = Settings::from_yaml(&format!("snippets: {{traefik: {{dynamic: {snippet}}}}}")).unwrap();
            text(&defaults.clone().overlaid(&settings))
        };
        assert!(file(1).contains("--providers.file.filename=/state/dynamic-") && file(1) != file(2), "{}", file(1));
    }
}
