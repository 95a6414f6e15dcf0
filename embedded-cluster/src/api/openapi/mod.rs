//! OpenAPI documents: what clients read to validate, to explain, and to learn which parameters the server knows.
//!
//! [`schemas`] has Kubernetes' own for built-in kinds, [`document`] puts a group version's document together, [`index`]
//! says which there are, [`version_2`] is the old form of it all.

mod document;
mod index;
mod schemas;
mod version_2;

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};

use super::kinds;
use super::query::Query;
use super::respond::{self, Body};
use super::server::ApiState;
use super::status::Refusal;

pub(super) fn answer(state: &Arc<ApiState>, path: &[&str], query: &Query, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    let kinds = kinds::all(&state.store);
    let (group, version) = match path {
        ["openapi", "v3"] => return Ok(respond::json(StatusCode::OK, &index::index(&state.store, &kinds))),
        ["openapi", "v2"] => return version_2::answer(&kinds, headers),
        ["openapi", "v3", "api", version] => ("", *version),
        ["openapi", "v3", "apis", group, version] => (*group, *version),
        _ => return Err(Refusal::no_such_resource()),
    };
    let text = document::document(&kinds, group, version)?;
    let mut response = respond::raw_json(StatusCode::OK, text);
    index::let_cache(&mut response, query, &index::hash(&state.store, group));
    Ok(response)
}
