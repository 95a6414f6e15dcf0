//! OpenAPI documents: what clients read to validate, to explain, and to learn which parameters the server knows.

use std::sync::Arc;

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::discovery;
use super::kinds::{self, Kind};
use super::respond::{self, Body};
use super::server::ApiState;
use super::status::Refusal;

const PROTOBUF_2: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same without `@`, which media types may not contain; kube-apiserver answers so.
const PROTOBUF_2_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

pub(super) fn answer(state: &Arc<ApiState>, path: &[&str], headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    let kinds = kinds::all(&state.store);
    match path {
        ["openapi", "v3"] => Ok(respond::json(StatusCode::OK, &index(&kinds))),
        ["openapi", "v3", "api", version] => document(&kinds, "", version),
        ["openapi", "v3", "apis", group, version] => document(&kinds, group, version),
        ["openapi", "v2"] => Ok(version_2(headers)),
        _ => Err(Refusal::no_such_resource()),
    }
}

/// A version 2 document that describes nothing. kubectl falls back to it for kinds that version 3 does not have, and
/// takes it well that they are not there either; without the document it fails with a misleading message.
fn version_2(headers: &HeaderMap) -> Response<Body> {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if accept.contains(PROTOBUF_2) {
        // Field 1 (`swagger`) of openapi.v2.Document, a string of three bytes.
        return respond::with_type(StatusCode::OK, PROTOBUF_2_ANSWER, respond::full(&b"\x0a\x032.0"[..]));
    }
    respond::json(
        StatusCode::OK,
        &json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.33.0+gatelab"}, "paths": {}, "definitions": {}}),
    )
}

fn index(kinds: &[Arc<Kind>]) -> Value {
    let mut paths = Map::new();
    let mut add = |path: String| {
        let url = format!("/openapi/v3/{path}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    };
    add("api/v1".to_owned());
    for group in discovery::groups(kinds) {
        for version in discovery::versions(kinds, &group) {
            add(format!("apis/{group}/{version}"));
        }
    }
    json!({"paths": paths})
}

fn document(kinds: &[Arc<Kind>], group: &str, version: &str) -> Result<Response<Body>, Refusal> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in kinds.iter().filter(|kind| kind.resource.group == group && kind.resource.version == version) {
        let (item, schema) = operations(kind);
        paths.insert(url(kind), item);
        schemas.insert(schema_name(kind), schema);
    }
    if paths.is_empty() && !discovery::versions(kinds, group).iter().any(|v| v == version) {
        return Err(Refusal::no_such_resource());
    }
    Ok(respond::json(
        StatusCode::OK,
        &json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "v1.33.0+gatelab"},
            "paths": paths,
            "components": {"schemas": schemas},
        }),
    ))
}

fn url(kind: &Kind) -> String {
    let resource = &kind.resource;
    let root = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let namespace = if kind.is_namespaced() { "/namespaces/{namespace}" } else { "" };
    format!("{root}/{}{namespace}/{}/{{name}}", resource.version, resource.plural)
}

fn schema_name(kind: &Kind) -> String {
    let resource = &kind.resource;
    let group = if resource.group.is_empty() { "core" } else { &resource.group };
    format!("io.k8s.api.{}.{}.{}", group.split('.').next().unwrap_or(group), resource.version, resource.kind)
}

/// kubectl looks at the patch operation: does the server take `fieldValidation`, and so validate by itself?
fn operations(kind: &Kind) -> (Value, Value) {
    let resource = &kind.resource;
    let gvk = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters = ["dryRun", "fieldManager", "fieldValidation", "force"].map(parameter);
    let schema = json!({"$ref": format!("#/components/schemas/{}", schema_name(kind))});
    let operation = |action: &str| {
        json!({
            "operationId": format!("{action}{}{}", resource.version, resource.kind),
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        })
    };
    // Strategic merge is not named here on purpose: kubectl would take merge keys from these schemas, which have none,
    // instead of from its own types.
    let mut patch = operation("patch");
    patch["requestBody"] = json!({"content": {"application/apply-patch+yaml": {"schema": {}}, "application/json-patch+json": {"schema": {}},
        "application/merge-patch+json": {"schema": {}}}});
    let item = json!({"get": operation("get"), "put": operation("put"), "patch": patch, "delete": operation("delete")});
    let mut schema =
        super::custom::open_api(kind).unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    schema["x-kubernetes-group-version-kind"] = json!([gvk]);
    (item, schema)
}
