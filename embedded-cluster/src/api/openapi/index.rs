//! Which documents there are, and how long a client may keep them.

use std::sync::Arc;

use http::Response;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::super::discovery;
use super::super::kinds::Kind;
use super::super::query::Query;
use super::super::respond::Body;
use crate::store::{Resource, Store};

pub(super) fn index(store: &Store, kinds: &[Arc<Kind>]) -> Value {
    let mut paths = Map::new();
    let mut add = |path: String, group: &str| {
        let url = format!("/openapi/v3/{path}?hash={}", hash(store, group));
        paths.insert(path, json!({"serverRelativeURL": url}));
    };
    add("api/v1".to_owned(), "");
    for group in discovery::groups(kinds) {
        for version in discovery::versions(kinds, &group) {
            add(format!("apis/{group}/{version}"), &group);
        }
    }
    json!({"paths": paths})
}

/// Changes whenever a document of the group does: with this program, and with a group's definitions. Another cluster at
/// the same address has other uids, so that no client takes its cached documents for ours.
pub(super) fn hash(store: &Store, group: &str) -> String {
    let mut hash = Sha256::new().chain_update(env!("CARGO_PKG_VERSION")).chain_update(super::schemas::digest());
    for definition in store.list(&Resource::of::<CustomResourceDefinition>(), None).items {
        if definition["spec"]["group"] == group {
            hash.update(definition["metadata"]["uid"].as_str().unwrap_or_default());
            hash.update(definition["metadata"]["generation"].to_string());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A document that was asked for by its hash never changes (`handler3` of kube-openapi).
pub(super) fn let_cache(response: &mut Response<Body>, query: &Query, hash: &str) {
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        headers.insert(ETAG, tag);
    }
    if query.get("hash") == Some(hash) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
}
