//! From a request to the handler that answers it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;

use super::identity::Identity;
use super::server::ApiState;

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub(super) async fn respond(_state: Arc<ApiState>, _identity: Option<Identity>, _request: Request<Incoming>) -> Response<Body> {
    Response::new(Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync())
}
