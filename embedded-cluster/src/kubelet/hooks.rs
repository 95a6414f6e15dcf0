//! Lifecycle hooks: `postStart` and `preStop`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{HTTPGetAction, LifecycleHandler};

use super::probe_actions::Target;

/// HTTP hooks have no timeout of their own in the kubelet; the grace period or this bounds them.
const HTTP_HOOK: Duration = Duration::from_secs(600);

/// Runs a hook to its end. The error is what the event says after `PostStartHook failed` or `PreStopHook failed`.
pub(super) async fn run(target: &Target, hook: &LifecycleHandler) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        let command = action.command.clone().unwrap_or_default().join(" ");
        return target.exec(action).await.map_err(|(code, output)| {
            format!(
                "Exec lifecycle hook ([{command}]) failed - error: command '{command}' exited with {code}: {output}, message: {output:?}"
            )
        });
    }
    if let Some(action) = &hook.http_get {
        let action: HTTPGetAction = action.clone();
        let agent = "kube-lifecycle/1.33";
        return target.http(&action, HTTP_HOOK, agent).await.map_err(|error| format!("HTTP lifecycle hook failed - error: {error}"));
    }
    if let Some(action) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
    }
    // tcpSocket is accepted by the API for old manifests and does nothing.
    Ok(())
}
