//! Which container of a pod a request means.

use std::sync::Arc;

use serde_json::Value;

use super::super::query::Query;
use super::super::route::Target;
use super::super::server::ApiState;
use super::super::status::Refusal;
use crate::kubelet::{AccessError, ContainerTarget};

pub(super) fn pod(state: &ApiState, target: &Target) -> Result<Arc<Value>, Refusal> {
    let name = target.object_name()?;
    state.store.get(&target.kind.storage, target.namespace(), name).map_err(|_| Refusal::not_found(&target.kind, name))
}

/// The container that the query names, or the only one.
///
/// # Errors
/// 404 without such a pod, 400 when the name is missing or wrong; worded as kube-apiserver does.
pub(super) fn container(state: &ApiState, target: &Target, query: &Query) -> Result<ContainerTarget, Refusal> {
    let pod = pod(state, target)?;
    let name = target.object_name()?;
    let names = |list: &str| -> Vec<String> {
        let items = pod["spec"][list].as_array().into_iter().flatten();
        items.filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
    };
    let (containers, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let container = match query.get("container") {
        Some(given) => {
            if !containers.iter().chain(&init).chain(&ephemeral).any(|c| c == given) {
                return Err(Refusal::bad_request(format!("container {given} is not valid for pod {name}")));
            }
            given.to_owned()
        }
        None => match (containers.as_slice(), init.is_empty() && ephemeral.is_empty()) {
            ([only], true) => only.clone(),
            ([only], false) if ephemeral.is_empty() && init.is_empty() => only.clone(),
            (many, _) => {
                let mut message = format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
                if !init.is_empty() {
                    message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                if !ephemeral.is_empty() {
                    message.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
                }
                return Err(Refusal::bad_request(message));
            }
        },
    };
    let namespace = target.namespace().unwrap_or_default().to_owned();
    Ok(ContainerTarget { namespace, pod: name.to_owned(), container: Some(container) })
}

impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::NotFound(message) => Self::new(404, "NotFound", message),
            AccessError::BadRequest(message) => Self::bad_request(message),
            AccessError::Internal(message) => Self::internal(message),
        }
    }
}
