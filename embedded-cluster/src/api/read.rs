//! GET of one object and of lists.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::kinds::Kind;
use super::respond::{self, Body, Form};
use super::route::Target;
use super::router::Call;
use super::selector::{FieldSelector, LabelSelector};
use super::status::Refusal;
use super::{convert, table};

/// Label and field selector of a request.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selection {
    /// # Errors
    /// 400 when a selector cannot be read.
    pub fn of(call: &Call, kind: &Kind) -> Result<Self, Refusal> {
        Ok(Self {
            labels: LabelSelector::parse(call.query.get("labelSelector").unwrap_or_default())?,
            fields: FieldSelector::parse(call.query.get("fieldSelector").unwrap_or_default(), kind)?,
        })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

pub(super) fn get(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let name = target.object_name()?;
    let object =
        call.state.store.get(&target.kind.storage, target.namespace(), name).map_err(|_| Refusal::not_found(&target.kind, name))?;
    one(call, &target.kind, &object, StatusCode::OK)
}

/// One object in the form that the client accepts.
pub(super) fn one(call: &Call, kind: &Kind, object: &Arc<Value>, code: StatusCode) -> Result<Response<Body>, Refusal> {
    let object = convert::outgoing(kind, object);
    Ok(match respond::form(&call.headers)? {
        Form::Object => respond::raw_json(code, encode(&object)),
        Form::Table => {
            let version = object["metadata"]["resourceVersion"].clone();
            let table = table::table(kind, std::slice::from_ref(&object), include_object(call), true, &json!({"resourceVersion": version}));
            respond::json(code, &table)
        }
        Form::Metadata => respond::json(code, &convert::metadata_only(&object)),
    })
}

pub(super) fn encode(object: &Value) -> Bytes {
    // A Value always has string keys, so that encoding cannot fail.
    serde_json::to_vec(object).unwrap_or_default().into()
}

pub(super) fn include_object(call: &Call) -> table::Include {
    match call.query.get("includeObject") {
        Some("Object") => table::Include::Object,
        Some("None") => table::Include::None,
        _ => table::Include::Metadata,
    }
}

/// Where a limited list stopped. The version is that of the first page: a watch from it misses nothing, though later
/// pages may show newer objects.
struct Continue {
    version: u64,
    namespace: String,
    name: String,
}

impl Continue {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": self.version, "ns": self.namespace, "n": self.name}).to_string())
    }

    fn decode(token: &str) -> Option<Self> {
        let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let text = |field: &str| value[field].as_str().map(str::to_owned);
        Some(Self { version: value["rv"].as_u64()?, namespace: text("ns")?, name: text("n")? })
    }
}

pub(super) fn list(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let kind = &target.kind;
    let selection = Selection::of(call, kind)?;
    let form = respond::form(&call.headers)?;
    let store = &call.state.store;
    check_version(call, store.resource_version())?;
    let list = store.list(&kind.storage, target.namespace());
    let mut items = list.items;
    if !selection.is_everything() {
        items.retain(|object| selection.matches(object));
    }
    let mut metadata = json!({"resourceVersion": list.resource_version.to_string()});
    if let Some(token) = call.query.get("continue") {
        let from = Continue::decode(token).ok_or_else(|| Refusal::bad_request("continue key is not valid: unable to decode"))?;
        items.retain(|object| key(object) > (from.namespace.as_str(), from.name.as_str()));
        metadata["resourceVersion"] = from.version.to_string().into();
    }
    let limit = call.query.number::<usize>("limit")?.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    if items.len() > limit {
        let remaining = items.len() - limit;
        items.truncate(limit);
        if let Some(last) = items.last() {
            let (namespace, name) = key(last);
            let version = metadata["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(list.resource_version);
            let next = Continue { version, namespace: namespace.to_owned(), name: name.to_owned() };
            metadata["continue"] = next.encode().into();
            // As kube-apiserver: not told where a selector makes it a guess.
            if selection.is_everything() {
                metadata["remainingItemCount"] = remaining.into();
            }
        }
    }
    let items: Vec<Arc<Value>> = items.iter().map(|object| convert::outgoing(kind, object)).collect();
    Ok(match form {
        Form::Object => respond::raw_json(StatusCode::OK, encode_list(&kind.list_kind(), &kind.resource.api_version(), &metadata, &items)),
        Form::Table => respond::json(StatusCode::OK, &table::table(kind, &items, include_object(call), true, &metadata)),
        Form::Metadata => {
            let items: Vec<Value> = items.iter().map(|object| convert::metadata_only(object)).collect();
            respond::json(
                StatusCode::OK,
                &json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items}),
            )
        }
    })
}

fn key(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

/// `resourceVersion` with `resourceVersionMatch=Exact` can only be had for the present, since history holds changes.
fn check_version(call: &Call, current: u64) -> Result<(), Refusal> {
    let Some(asked) = call.query.number::<u64>("resourceVersion")? else {
        return match call.query.get("resourceVersionMatch") {
            Some(_) => Err(Refusal::bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")),
            None => Ok(()),
        };
    };
    match call.query.get("resourceVersionMatch") {
        None | Some("NotOlderThan") if asked > current => Err(too_large(asked, current)),
        None | Some("NotOlderThan") => Ok(()),
        Some("Exact") if asked == 0 => Err(Refusal::bad_request("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")),
        Some("Exact") if asked > current => Err(too_large(asked, current)),
        Some("Exact") if asked < current => {
            Err(Refusal::new(410, "Expired", "The provided resource version is too old; only the present one can be listed exactly"))
        }
        Some("Exact") => Ok(()),
        Some(other) => Err(Refusal::bad_request(format!("resourceVersionMatch: Unsupported value: \"{other}\""))),
    }
}

pub(super) fn too_large(asked: u64, current: u64) -> Refusal {
    let mut refusal = Refusal::new(504, "Timeout", format!("Too large resource version: {asked}, current: {current}"));
    refusal.details =
        Some(json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1}));
    refusal
}

/// Writes a list without copying its objects.
fn encode_list(kind: &str, api_version: &str, metadata: &Value, items: &[Arc<Value>]) -> Bytes {
    let mut out = Vec::with_capacity(256 + items.len() * 1024);
    out.extend_from_slice(format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[").as_bytes());
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut out, &**item);
    }
    out.extend_from_slice(b"]}");
    out.into()
}
