//! What the admin port answers.
//!
//! `GET /config` · `PUT /config` (all of it) · `PATCH /config` (RFC 7396 merge patch) · `POST /set` (`{"path": "value"}`) ·
//! `GET /journal?since=` · `GET /journal/stream` (JSON lines) · `GET /metrics` · `GET /ca.pem`

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use tokio_stream::wrappers::BroadcastStream;

use crate::{
    Config, Error,
    backend::Shared,
    journal::{Entry, Since},
};

type Body = BoxBody<Bytes, Infallible>;

pub(crate) async fn route(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Ok(text(StatusCode::BAD_REQUEST, "text/plain", error.to_string())),
    };
    let path = parts.uri.path();
    Ok(match (&parts.method, path) {
        (&Method::GET, "/config") => json_response(StatusCode::OK, &shared.active().config),
        (&Method::PUT, "/config") => switch(&shared, |_| Config::from_json(parse(&body)?, "(body)")),
        (&Method::PATCH, "/config") => switch(&shared, |config| config.merged(&parse(&body)?)),
        (&Method::POST, "/set") => switch(&shared, |config| {
            let assignments: BTreeMap<String, String> =
                serde_json::from_slice(&body).map_err(|error| Error::Change { path: "(body)".to_owned(), reason: error.to_string() })?;
            config.assigned(assignments.iter().map(|(path, value)| (path.as_str(), value.as_str())))
        }),
        (&Method::GET, "/journal") => match since(parts.uri.query()) {
            Ok(since) => json_response(StatusCode::OK, &shared.journal.read(since)),
            Err(reason) => json_response(StatusCode::BAD_REQUEST, &json!({"error": reason})),
        },
        (&Method::GET, "/journal/stream") => match since(parts.uri.query()) {
            Ok(since) => stream(&shared, since),
            Err(reason) => json_response(StatusCode::BAD_REQUEST, &json!({"error": reason})),
        },
        (&Method::GET, "/metrics") => text(StatusCode::OK, "text/plain; version=0.0.4", shared.metrics.render()),
        (&Method::GET, "/ca.pem") => match shared.authority() {
            Some(authority) => text(StatusCode::OK, "application/x-pem-file", authority.certificate_pem().to_owned()),
            None => json_response(StatusCode::NOT_FOUND, &json!({"error": "this backend has no TLS"})),
        },
        (_, "/config" | "/set" | "/journal" | "/journal/stream" | "/metrics" | "/ca.pem") => {
            json_response(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": format!("{path} does not take {}", parts.method)}))
        }
        _ => json_response(StatusCode::NOT_FOUND, &json!({"error": format!("nothing at {path}")})),
    })
}

fn switch(shared: &Shared, change: impl FnOnce(&Config) -> Result<Config, Error>) -> Response<Body> {
    match shared.switch(change) {
        Ok(()) => json_response(StatusCode::OK, &shared.active().config),
        Err(error) => {
            let status = if matches!(error, Error::NeedsRestart { .. }) { StatusCode::CONFLICT } else { StatusCode::UNPROCESSABLE_ENTITY };
            json_response(status, &json!({"error": error.to_string()}))
        }
    }
}

fn parse(body: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Change { path: "(body)".to_owned(), reason: error.to_string() })
}

fn since(query: Option<&str>) -> Result<Since, String> {
    let value = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("since="));
    // RFC 3339 has `+` and `:`; both may come percent-encoded.
    value.map_or(Ok(Since::Seq(0)), |value| value.replace("%3A", ":").replace("%3a", ":").replace("%2B", "+").parse())
}

/// First what is there, then every change, one JSON object a line.
fn stream(shared: &Shared, since: Since) -> Response<Body> {
    // Subscribed before reading: what happens in between comes twice rather than never, and is dropped by its seq.
    let changes = BroadcastStream::new(shared.journal.follow());
    let page = shared.journal.read(since);
    let next = page.next;
    let news = changes.filter_map(move |change| std::future::ready(change.ok().filter(|entry| entry.seq() > next)));
    let lines = futures::stream::iter(page.entries).chain(news).map(|entry| Ok(Frame::data(line(&entry))));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(lines)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-ndjson"));
    response
}

fn line(entry: &Entry) -> Bytes {
    let mut line = serde_json::to_vec(entry).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

fn json_response(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    text(status, "application/json", format!("{}\n", serde_json::to_string(value).unwrap_or_default()))
}

fn text(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
