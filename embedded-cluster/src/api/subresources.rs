//! Subresources that are not streams.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::kinds::{Kind, Sub};
use super::respond::{self, Body};
use super::route::Target;
use super::router::Call;
use super::status::{FieldError, Refusal};
use super::{body, fields, patch, read};

pub(super) fn answer(call: &Call, target: &Target, sub: Sub) -> Result<Response<Body>, Refusal> {
    match (sub, &call.method) {
        (Sub::Scale, &Method::GET | &Method::PUT | &Method::PATCH) => scale(call, target),
        (Sub::Binding, &Method::POST) => bind(call, target),
        (Sub::Eviction, &Method::POST) => super::eviction::evict(call, target),
        (Sub::Token, &Method::POST) => token(call, target),
        (Sub::Finalize, &Method::PUT) => finalize(call, target),
        _ => Err(Refusal::method_not_allowed()),
    }
}

/// Where an object has what a Scale shows: `.spec.replicas`, or as its definition says.
struct ScalePaths {
    spec: String,
    status: String,
    selector: String,
}

fn scale_paths(kind: &Kind) -> ScalePaths {
    let scale = kind.custom.as_ref().map(|version| &version["subresources"]["scale"]);
    let path = |field: &str, usual: &str| scale.and_then(|scale| scale[field].as_str()).unwrap_or(usual).to_owned();
    ScalePaths {
        spec: path("specReplicasPath", ".spec.replicas"),
        status: path("statusReplicasPath", ".status.replicas"),
        selector: path("labelSelectorPath", ""),
    }
}

/// `autoscaling/v1` Scale of a workload.
fn scale_of(kind: &Kind, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let at = |path: &str| object.pointer(&path.replace('.', "/"));
    let paths = scale_paths(kind);
    let selector = match kind.custom {
        None => selector_text(&object["spec"]["selector"]),
        Some(_) => at(&paths.selector).and_then(Value::as_str).unwrap_or_default().to_owned(),
    };
    let mut status = json!({"replicas": at(&paths.status).and_then(Value::as_i64).unwrap_or(0)});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {},
        "status": status,
    });
    if let Some(replicas) = at(&paths.spec).and_then(Value::as_i64)
        && replicas != 0
    {
        scale["spec"]["replicas"] = replicas.into();
    }
    scale
}

/// A `metav1.LabelSelector` in its text form.
pub(super) fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for requirement in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = requirement["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match requirement["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.sort();
    parts.join(",")
}

fn scale(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let kind = &target.kind;
    let name = target.object_name()?;
    let store = &call.state.store;
    if call.method == Method::GET {
        let object = store.get(&kind.storage, target.namespace(), name).map_err(Refusal::from)?;
        return Ok(respond::json(StatusCode::OK, &scale_of(kind, &object)));
    }
    let stored = store.modify_or_try(&kind.storage, target.namespace(), name, call.dry_run()?, |current| {
        let now = scale_of(kind, current);
        let wanted = if call.method == Method::PUT { body::parse(call)? } else { patch::plain(call, &now)? };
        let replicas = match &wanted["spec"]["replicas"] {
            Value::Null => 0,
            value => value.as_i64().ok_or_else(|| {
                Refusal::bad_request("json: cannot unmarshal spec.replicas into Go struct field ScaleSpec.spec.replicas of type int32")
            })?,
        };
        if replicas < 0 {
            let error = FieldError::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
            let mut refusal = Refusal::invalid(kind, name, &[error]);
            refusal.message = refusal.message.replacen(&kind.qualified_kind(), "Scale.autoscaling", 1);
            return Err(refusal);
        }
        let mut next = current.clone();
        if let Some(version) = wanted["metadata"]["resourceVersion"].as_str().filter(|v| !v.is_empty()) {
            next["metadata"]["resourceVersion"] = version.into();
        }
        let path = scale_paths(kind).spec;
        let mut place = &mut next;
        for field in path.split('.').filter(|field| !field.is_empty()) {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[field];
        }
        *place = replicas.into();
        let operation = fields::Write { manager: call.field_manager(), sub: Some(Sub::Scale) };
        fields::written(&operation, Some(current), &mut next, kind);
        *current = next;
        Ok(())
    })?;
    Ok(respond::json(StatusCode::OK, &scale_of(kind, &stored)))
}

/// Assigns a pod to a node, as a scheduler does.
fn bind(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let name = target.object_name()?;
    let binding = body::parse(call)?;
    let node =
        binding["target"]["name"].as_str().filter(|n| !n.is_empty()).ok_or_else(|| Refusal::bad_request("target.name: Required value"))?;
    call.state.store.modify_or_try(&target.kind.storage, target.namespace(), name, call.dry_run()?, |pod| {
        if pod["metadata"]["deletionTimestamp"].is_string() {
            let message = format!(
                "Operation cannot be fulfilled on pods/binding \"{name}\": pod {name} is being deleted, cannot be assigned to a host"
            );
            return Err(Refusal::new(409, "Conflict", message));
        }
        if let Some(bound) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
            let message =
                format!("Operation cannot be fulfilled on pods/binding \"{name}\": pod {name} is already assigned to node \"{bound}\"");
            return Err(Refusal::new(409, "Conflict", message));
        }
        pod["spec"]["nodeName"] = node.into();
        Ok(())
    })?;
    Ok(respond::json(StatusCode::CREATED, &success(201)))
}

pub(super) fn success(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code})
}

/// TokenRequest: `kubectl create token`.
fn token(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let name = target.object_name()?;
    let namespace = target.namespace().unwrap_or_default();
    let account = call.state.store.get(&target.kind.storage, target.namespace(), name).map_err(Refusal::from)?;
    let mut request = body::parse(call)?;
    if !request.is_object() {
        return Err(Refusal::bad_request("the body is no TokenRequest"));
    }
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    let refuse = |detail: &str| {
        let error = FieldError::invalid("spec.expirationSeconds", &seconds.into(), detail);
        let message = format!("TokenRequest.authentication.k8s.io \"\" is invalid: {}: {}", error.field, error.message);
        Err(Refusal::new(422, "Invalid", message))
    };
    if seconds < 600 {
        return refuse("may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        return refuse("may not specify a duration larger than 2^32 seconds");
    }
    let mut audiences: Vec<String> =
        request["spec"]["audiences"].as_array().into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    if audiences.is_empty() {
        audiences.push(super::identity::AUDIENCE.to_owned());
    }
    let uid = account["metadata"]["uid"].as_str().unwrap_or_default();
    let token = call.state.tokens.issue(namespace, name, uid, seconds.unsigned_abs(), &audiences);
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    request["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": null});
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    Ok(respond::json(StatusCode::CREATED, &request))
}

/// `PUT /api/v1/namespaces/{name}/finalize`: only `spec.finalizers` is taken from the body.
fn finalize(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let name = target.object_name()?;
    let given = body::object(call, &target.kind)?;
    let stored = call.state.store.modify_or_try(&target.kind.storage, None, name, call.dry_run()?, |current| {
        current["spec"]["finalizers"] = given["spec"]["finalizers"].clone();
        if current["spec"]["finalizers"].is_null() {
            current["spec"] = json!({});
        }
        Ok::<(), Refusal>(())
    })?;
    read::one(call, &target.kind, &stored, StatusCode::OK)
}
