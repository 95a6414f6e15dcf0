//! From a request to the handler that answers it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::authorization::{self, Attributes};
use super::identity::Identity;
use super::kinds::Sub;
use super::query::Query;
use super::respond::{self, Body};
use super::route::{self, Target};
use super::server::ApiState;
use super::status::Refusal;
use super::{discovery, metrics, openapi, read, streams, subresources, watch, write};

/// etcd's and so kube-apiserver's bound on a request (`MaxRequestBodyBytes`).
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// A client that sends its body more slowly than this is cut off.
const BODY_TIME: Duration = Duration::from_secs(60);

/// With every answer about Endpoints, since 1.33.
const ENDPOINTS_DEPRECATED: &str = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

/// A request, read as far as all handlers need it.
pub(crate) struct Call {
    pub state: Arc<ApiState>,
    pub identity: Identity,
    pub method: Method,
    pub headers: HeaderMap,
    pub query: Query,
    pub body: Bytes,
}

impl Call {
    /// `dryRun=All`
    ///
    /// # Errors
    /// 400 for any other value.
    pub fn dry_run(&self) -> Result<bool, Refusal> {
        match self.query.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Refusal::bad_request(format!("dryRun: Unsupported value: \"{other}\": supported values: \"All\""))),
        }
    }

    /// The media type of the body without parameters.
    pub fn content_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
        value.split(';').next().unwrap_or_default().trim()
    }

    /// Who writes, for `managedFields`: the parameter, else the client's program name.
    pub fn field_manager(&self) -> String {
        let agent = || {
            let agent = self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("unknown");
            agent.split('/').next().unwrap_or("unknown").to_owned()
        };
        self.query.get("fieldManager").map_or_else(agent, str::to_owned)
    }
}

pub(super) async fn respond(state: Arc<ApiState>, identity: Option<Identity>, request: Request<Incoming>) -> Response<Body> {
    let method = request.method().clone();
    let response = match answer(state, identity, request).await {
        Ok(response) => response,
        Err(refusal) => respond::refusal(&refusal),
    };
    tracing::trace!(%method, status = response.status().as_u16(), "API request");
    response
}

async fn answer(state: Arc<ApiState>, identity: Option<Identity>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path().trim_end_matches('/').to_owned();
    // Open to anonymous clients in Kubernetes, too (ClusterRole system:public-info-viewer).
    match path.as_str() {
        "/healthz" | "/livez" | "/readyz" => return Ok(respond::text(StatusCode::OK, "ok")),
        "/version" => return Ok(respond::json(StatusCode::OK, &discovery::version())),
        _ => {}
    }
    let identity = identity.or_else(|| bearer(&state, &parts.headers)).ok_or_else(Refusal::unauthorized)?;
    let identity = authorization::impersonated(&state.store, identity, &parts.headers)?;
    let query = Query::parse(parts.uri.query());
    // Before anything is looked up: a stranger is not told what there is.
    let asked = Attributes::of_request(&parts.method, parts.uri.path(), &query);
    authorization::authorize(&state.store, &identity, &asked)?;
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let target = match segments.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => route::resolve(&state.store, "", version, rest)?,
        ["apis", group, version, rest @ ..] if !rest.is_empty() => {
            if let Some((review, namespace)) = authorization::review(group, rest) {
                let call = read_call(state, identity, parts, incoming, query).await?;
                return review(&call, namespace);
            }
            if (*group, *version) == (metrics::GROUP, metrics::VERSION) {
                let call = read_call(state, identity, parts, incoming, query).await?;
                return metrics::answer(&call, rest).await;
            }
            route::resolve(&state.store, group, version, rest)?
        }
        other => {
            if parts.method != Method::GET {
                return Err(Refusal::method_not_allowed());
            }
            return match other {
                ["openapi", ..] => openapi::answer(&state, other, &query, &parts.headers),
                _ => discovery::answer(&state.store, other, &parts.headers),
            };
        }
    };
    if let Some(sub @ (Sub::Exec | Sub::Attach | Sub::PortForward)) = target.sub {
        let request = Request::from_parts(parts, incoming);
        return streams::upgrade(state, &target, sub, &query, request).await;
    }
    let call = read_call(state, identity, parts, incoming, query).await?;
    let (kind, name) = (target.kind.clone(), target.name.clone());
    let mut response = dispatch(&call, &target).await.map_err(|refusal| refusal.about(&kind, name.as_deref()))?;
    if kind.is("", "endpoints") {
        respond::warn(&mut response, &[ENDPOINTS_DEPRECATED.to_owned()]);
    }
    Ok(response)
}

async fn dispatch(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    if let Some(sub) = target.sub
        && !matches!(sub, Sub::Status | Sub::EphemeralContainers)
    {
        return match sub {
            Sub::Log => streams::log(call, target).await,
            other => subresources::answer(call, target, other),
        };
    }
    match (&call.method, &target.name) {
        (&Method::GET, _) if call.query.flag("watch") => watch::watch(call, target),
        (&Method::GET, None) => read::list(call, target),
        (&Method::GET, Some(_)) => read::get(call, target),
        (&Method::POST, None) => write::create(call, target),
        (&Method::PUT, Some(_)) => write::update(call, target),
        (&Method::PATCH, Some(_)) => write::patch(call, target),
        (&Method::DELETE, Some(_)) if target.sub.is_none() => write::delete(call, target),
        (&Method::DELETE, None) => write::delete_collection(call, target),
        _ => Err(Refusal::method_not_allowed()),
    }
}

fn bearer(state: &ApiState, headers: &HeaderMap) -> Option<Identity> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| state.bearer(token.trim())).flatten()
}

async fn read_call(state: Arc<ApiState>, identity: Identity, parts: Parts, body: Incoming, query: Query) -> Result<Call, Refusal> {
    let body = match tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {BODY_LIMIT}");
            return Err(Refusal::new(413, "RequestEntityTooLarge", message));
        }
        Ok(Err(error)) => return Err(Refusal::bad_request(format!("reading the request body: {error}"))),
        Err(_) => return Err(Refusal::new(408, "Timeout", "the request body did not arrive in time")),
    };
    Ok(Call { state, identity, method: parts.method, headers: parts.headers, query, body })
}
