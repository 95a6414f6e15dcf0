//! OpenAPI version 2, for clients that ask for nothing newer.

use std::sync::Arc;

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};

use super::super::kinds::Kind;
use super::super::respond::{self, Body};
use super::super::status::Refusal;
use super::schemas::{self, Schemas};

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same without `@`, which media types may not contain; kube-apiserver answers so.
const PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The same schemas as `openapi.v2.Document` of gnostic, deflated; see `embedded-cluster/openapi/README.md`.
const PACKED: &[u8] = include_bytes!("../../../openapi/version-2.deflate");
/// Bytes that it takes unpacked, and some.
const ROOM: usize = 1024 * 1024;

/// JSON has the definitions of the kinds that are served; the protobuf form, which kubectl before 1.27 validates by and
/// explains from, those of all kinds in the served groups. Custom resources are in version 3 only.
pub(super) fn answer(kinds: &[Arc<Kind>], headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if accept.contains(PROTOBUF) {
        let bytes = schemas::inflate(PACKED, ROOM)?;
        return Ok(respond::with_type(StatusCode::OK, PROTOBUF_ANSWER, respond::full(bytes)));
    }
    let unpacked = schemas::unpack()?;
    let schemas = Schemas::read(&unpacked);
    let names = kinds.iter().filter_map(|kind| {
        let resource = &kind.resource;
        schemas.name_of(&resource.group, &resource.version, &resource.kind)
    });
    let mut text =
        "{\"swagger\":\"2.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":\"v1.33.0+gatelab\"},\"paths\":{},\"definitions\":{"
            .to_owned();
    for (index, (name, schema)) in schemas.closure(names).into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&format!("\"{name}\":{}", schema.replace("#/components/schemas/", "#/definitions/")));
    }
    text.push_str("}}");
    Ok(respond::raw_json(StatusCode::OK, text))
}
