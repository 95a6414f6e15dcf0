//! The application: what a request is answered, by health endpoint, route or default.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::sleep;

use super::{
    Role,
    activity::{ConnectionState, Takeover, Then},
    grpc,
    track::Track,
    websocket::{self, Asks},
};
use crate::{
    backend::Shared,
    config::{Config, Grpc, Response as Behaviour, Verdict, WebSocket},
    misbehaviour::{
        delivery::{self, Intended},
        memory, oversized_headers,
        stalled_body::Payload,
    },
    upstream,
};

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Asked {
    Liveness,
    Readiness,
    Application,
    /// Anything but health on the health port.
    NotThere,
}

impl Asked {
    pub(crate) fn about(config: &Config, role: Role, path: &str) -> Asked {
        match role {
            _ if path == config.health.liveness_path => Asked::Liveness,
            _ if path == config.health.readiness_path => Asked::Readiness,
            Role::Main => Asked::Application,
            Role::Health => Asked::NotThere,
        }
    }

    pub(crate) fn is_health(self) -> bool {
        self != Asked::Application
    }
}

pub(crate) enum Answer {
    /// A response that hyper writes.
    Whole(Response<()>, Payload),
    /// Bytes that the driver writes in hyper's place.
    Raw { status: Option<u16>, takeover: Takeover },
}

pub(crate) async fn answer(
    shared: Arc<Shared>,
    state: Arc<ConnectionState>,
    track: Arc<Track>,
    asked: Asked,
    request: Request<Incoming>,
) -> Answer {
    let (parts, mut body) = request.into_parts();
    let is_grpc = grpc::is_call(&parts);
    let mut received = 0;
    let mut message = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        received += data.len() as u64;
        if is_grpc {
            message.extend_from_slice(&data[..data.len().min(grpc::LARGEST.saturating_sub(message.len()))]);
        }
    }
    track.request_body(received);
    let config = shared.active().config.clone();
    let application = Application { shared: &shared, config: &config, request_id: parts.headers.get("x-request-id").cloned() };
    let given = match asked {
        Asked::Liveness => application.health(config.health.liveness, true).await,
        Asked::Readiness => application.health(config.health.readiness, shared.is_ready()).await,
        Asked::NotThere => application.plain(StatusCode::NOT_FOUND, json!({"error": "not found"})),
        Asked::Application => {
            let behaviour = config.response_for(parts.method.as_str(), parts.uri.path());
            let _held = behaviour.memory.map(memory::Held::take);
            if let Some(latency) = &behaviour.latency {
                sleep(latency.draw()).await;
            }
            match (&behaviour.grpc, behaviour.websocket) {
                _ if shared.is_starting() => application.answer(&behaviour, &track, parts.uri.path()).await,
                (Some(grpc), _) if is_grpc => application.grpc(grpc, &message, parts.uri.path()),
                (_, Some(settings)) => match websocket::asks(&parts) {
                    Asks::Nothing if settings.required.is_none() => application.answer(&behaviour, &track, parts.uri.path()).await,
                    asks => application.upgrade(settings, &asks),
                },
                _ => application.answer(&behaviour, &track, parts.uri.path()).await,
            }
        }
    };
    track.answer_ready(state.request_cut_by());
    given
}

struct Application<'a> {
    shared: &'a Shared,
    config: &'a Config,
    request_id: Option<HeaderValue>,
}

impl Application<'_> {
    async fn health(&self, verdict: Verdict, truth: bool) -> Answer {
        if let Some(latency) = self.config.health.latency {
            sleep(latency).await;
        }
        let passes = match verdict {
            Verdict::Auto => truth,
            Verdict::Pass => true,
            Verdict::Fail => false,
        };
        if passes {
            self.plain(StatusCode::OK, json!({"status": "ok"}))
        } else {
            self.plain(StatusCode::SERVICE_UNAVAILABLE, json!({"status": "unavailable"}))
        }
    }

    /// A unary call's answer, or a trailers-only one for a failure (gRPC over HTTP/2, "Responses").
    fn grpc(&self, settings: &Grpc, message: &[u8], path: &str) -> Answer {
        let mut headers = self.headers("application/grpc");
        let status = grpc::status_headers(settings);
        if settings.status != 0 {
            headers.extend(status);
            return self.whole(StatusCode::OK, headers, Payload::text(Bytes::new()));
        }
        let message = if path == grpc::HEALTH_CHECK { grpc::health(self.shared.is_ready()) } else { message.to_vec() };
        self.whole(StatusCode::OK, headers, Payload::text(message).with_trailers(status))
    }

    /// What a WebSocket endpoint answers to a handshake, or to a request that is none.
    fn upgrade(&self, settings: WebSocket, asks: &Asks) -> Answer {
        let refuse = |status: StatusCode, message: &str| {
            let mut headers = self.headers("text/plain; charset=utf-8");
            headers.extend(websocket::wanted());
            self.whole(status, headers, Payload::text(format!("{message}\n")))
        };
        match asks {
            Asks::Upgrade { key } => {
                let bytes = websocket::switching_protocols(key, &header_lines(&self.headers_without_body()));
                Answer::Raw {
                    status: Some(StatusCode::SWITCHING_PROTOCOLS.as_u16()),
                    takeover: Takeover { bytes, then: Then::WebSocket(settings, None) },
                }
            }
            Asks::OtherVersion => refuse(StatusCode::UPGRADE_REQUIRED, "this endpoint speaks version 13 of the WebSocket protocol"),
            Asks::WithoutKey => refuse(StatusCode::BAD_REQUEST, "the handshake has no Sec-WebSocket-Key"),
            Asks::Nothing => {
                let status = settings.required.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::UPGRADE_REQUIRED);
                refuse(status, "this endpoint speaks the WebSocket protocol")
            }
        }
    }

    async fn answer(&self, behaviour: &Behaviour, track: &Track, path: &str) -> Answer {
        if self.shared.is_starting() {
            return self.plain(
                StatusCode::SERVICE_UNAVAILABLE,
                json!({"app": self.config.name, "served_by": self.shared.served_by, "error": "starting"}),
            );
        }
        let mut status = behaviour.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
        let mut message = json!({"app": self.config.name, "served_by": self.shared.served_by, "path": path});
        if let Some(id) = self.request_id.as_ref().and_then(|id| id.to_str().ok()) {
            message["request_id"] = id.into();
        }
        if let Some(spec) = &behaviour.upstream {
            match upstream::call(spec, self.request_id.as_ref()).await {
                Ok(answered) => message["upstream"] = json!({"url": spec.url, "status": answered}),
                Err(error) => {
                    // The application's own gateway error: its headers and body say whose it is.
                    status = error.status();
                    let text = error.to_string();
                    message["error"] = "upstream request failed".into();
                    message["upstream"] = json!({"url": spec.url, "error": text});
                    track.upstream_failed(text);
                    return self.plain(status, message);
                }
            }
        }
        let payload = match (&behaviour.body, behaviour.body_size) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(size)) => Err(size),
            (None, None) => Ok(format!("{message}\n")),
        };
        let json = behaviour.body.is_none() && behaviour.body_size.is_none();
        let mut headers = self.headers(if json { "application/json" } else { "text/plain; charset=utf-8" });
        if let Some(size) = behaviour.header_size {
            oversized_headers::add(&mut headers, size);
        }
        for (name, value) in &behaviour.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        if let Some(delivery) = behaviour.delivery {
            let body = match &payload {
                Ok(text) => Bytes::from(text.clone()),
                // Held in memory as a whole, unlike a body that hyper sends.
                Err(size) => Bytes::from(vec![b'x'; usize::try_from(size.0.min(64 << 20)).unwrap_or_default()]),
            };
            let intended = Intended { status: status.to_string(), headers: header_lines(&headers), body };
            if let Some(bytes) = delivery::bytes_for(delivery, &intended) {
                let status = (!bytes.is_empty()).then_some(status.as_u16());
                return Answer::Raw {
                    status,
                    takeover: Takeover { bytes, then: Then::Close(behaviour.delivery_close.unwrap_or_default()) },
                };
            }
        }
        let payload = payload.map_or_else(|size| Payload::filler(size.0), Payload::text).with_pause(behaviour.body_pause);
        self.whole(status, headers, payload)
    }

    fn plain(&self, status: StatusCode, message: serde_json::Value) -> Answer {
        self.whole(status, self.headers("application/json"), Payload::text(format!("{message}\n")))
    }

    fn whole(&self, status: StatusCode, headers: HeaderMap, payload: Payload) -> Answer {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Answer::Whole(response, payload)
    }

    fn headers(&self, content_type: &'static str) -> HeaderMap {
        let mut headers = self.headers_without_body();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers
    }

    fn headers_without_body(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, text) in [("x-served-by", &self.shared.served_by), ("x-app", &self.config.name)] {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        if let Some(id) = &self.request_id {
            headers.insert("x-request-id", id.clone());
        }
        headers
    }
}

fn header_lines(headers: &HeaderMap) -> String {
    let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
    headers.iter().map(line).collect()
}
