//! Server-side apply.

use serde_json::Value;

use super::super::fields;
use super::super::route::Target;
use super::super::router::Call;
use super::super::status::Refusal;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(super) fn apply(call: &Call, target: &Target, current: &Value, config: &Value) -> Result<Value, Refusal> {
    let manager = manager(call)?;
    let force = call.query.flag("force");
    let mut applied = fields::apply(&target.kind, target.sub, &manager, force, Some(current), config)?;
    // What client-side apply has noted is kept up to date for it, if it is kubectl that applies (`lastappliedupdater.go`).
    if manager == "kubectl" && applied["metadata"]["annotations"][LAST_APPLIED].as_str().is_some_and(|noted| !noted.is_empty()) {
        let mut noted = config.clone();
        if let Some(annotations) = noted["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        applied["metadata"]["annotations"][LAST_APPLIED] = format!("{noted}\n").into();
    }
    Ok(applied)
}

/// What applying to nothing makes.
pub(super) fn create(call: &Call, target: &Target, config: &Value) -> Result<Value, Refusal> {
    let manager = manager(call)?;
    let mut config = config.clone();
    if config["metadata"]["name"].is_null()
        && let Some(name) = &target.name
    {
        config["metadata"]["name"] = name.clone().into();
    }
    fields::apply(&target.kind, target.sub, &manager, true, None, &config)
}

fn manager(call: &Call) -> Result<String, Refusal> {
    call.query.get("fieldManager").map(str::to_owned).ok_or_else(|| {
        Refusal::bad_request("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")
    })
}
