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

/// Where a limited list stopped: all pages show the version of the first one.
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
    let exact = check_version(call, store.resource_version())?;
    let from = match call.query.get("continue") {
        Some(token) => {
            let from = Continue::decode(token).ok_or_else(|| Refusal::bad_request("continue key is not valid: unable to decode"))?;
            if call.query.number::<u64>("resourceVersion")?.is_some_and(|version| version != 0) {
                return Err(Refusal::bad_request("specifying resource version is not allowed when using continue"));
            }
            Some(from)
        }
        None => None,
    };
    let list = match (&from, exact) {
        (Some(from), _) if from.version != PRESENT => match store.list_at(&kind.storage, target.namespace(), from.version) {
            Ok(list) => list,
            Err(_) => return Ok(page_expired(from)),
        },
        (None, Some(version)) => store
            .list_at(&kind.storage, target.namespace(), version)
            .map_err(|_| Refusal::new(410, "Expired", "The resourceVersion for the provided list is too old."))?,
        _ => store.list(&kind.storage, target.namespace()),
    };
    let mut items = list.items;
    if !selection.is_everything() {
        items.retain(|object| selection.matches(object));
    }
    let mut metadata = json!({"resourceVersion": list.resource_version.to_string()});
    if let Some(from) = &from {
        items.retain(|object| key(object) > (from.namespace.as_str(), from.name.as_str()));
    }
    let limit = call.query.number::<usize>("limit")?.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    if items.len() > limit {
        let remaining = items.len() - limit;
        items.truncate(limit);
        if let Some(last) = items.last() {
            let (namespace, name) = key(last);
            let next = Continue { version: list.resource_version, namespace: namespace.to_owned(), name: name.to_owned() };
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

/// The version in a continue token that stands for whatever is there when it is used.
const PRESENT: u64 = 0;

/// As kube-apiserver: with a token for going on all the same, from what is there by then.
fn page_expired(from: &Continue) -> Response<Body> {
    let next = Continue { version: PRESENT, namespace: from.namespace.clone(), name: from.name.clone() };
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the \
                   continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with \
                   the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time \
                   the first chunk was returned and now may show up in the list.";
    let mut status = Refusal::new(410, "Expired", message).status();
    status["metadata"]["continue"] = next.encode().into();
    respond::json(StatusCode::GONE, &status)
}

fn key(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

/// Whether the asked version can be served, and which one exactly if one is wanted (`ValidateListOptions`).
fn check_version(call: &Call, current: u64) -> Result<Option<u64>, Refusal> {
    let invalid = |detail: &str| {
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: {detail}");
        Err(Refusal::new(422, "Invalid", message))
    };
    let Some(asked) = call.query.number::<u64>("resourceVersion")? else {
        return match call.query.get("resourceVersionMatch") {
            Some(_) => invalid("Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"),
            None => Ok(None),
        };
    };
    match call.query.get("resourceVersionMatch") {
        None | Some("NotOlderThan") if asked > current => Err(too_large(asked, current)),
        // A limited list at a version is of that version (`resourceVersionMatch` unset is then "Exact").
        None if asked != 0 && call.query.get("limit").is_some() => Ok(Some(asked)),
        None | Some("NotOlderThan") => Ok(None),
        Some("Exact") if asked == 0 => invalid("Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        Some("Exact") if asked > current => Err(too_large(asked, current)),
        Some("Exact") => Ok(Some(asked)),
        Some(other) => invalid(&format!("Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\"")),
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
