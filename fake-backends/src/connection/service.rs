//! From hyper's request to hyper's response, with a journal entry around it.

use std::{convert::Infallible, sync::Arc};

use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;

use super::{
    Role,
    activity::{ConnectionState, Takeover, Then},
    answer::{Answer, Asked, answer},
    body::JournaledBody,
    track::{InFlight, Track},
};
use crate::{
    backend::{Phase, Shared},
    config::Close,
    journal::{RequestEnd, RequestEntry},
    misbehaviour::{close_after_requests, close_on_request},
};

#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: Arc<ConnectionState>,
    pub(crate) role: Role,
}

pub(crate) async fn respond(context: Context, request: Request<Incoming>) -> Result<Response<JournaledBody>, Infallible> {
    let Context { shared, state, role } = context;
    let http2 = request.version() == Version::HTTP_2;
    let number = state.request_started(http2);
    let active = shared.active();
    let asked = Asked::about(&active.config, role, request.uri().path());
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let track = Track::begin(
        shared.clone(),
        RequestEntry {
            seq: 0,
            time: jiff::Timestamp::now(),
            request: shared.journal.next_request(),
            connection: state.id,
            number,
            request_id: header("x-request-id"),
            method: request.method().to_string(),
            path: request.uri().path_and_query().map_or_else(|| request.uri().path().to_owned(), ToString::to_string),
            host: header("host").or_else(|| request.uri().authority().map(ToString::to_string)),
            protocol: format!("{:?}", request.version()),
            health: asked.is_health(),
            status: None,
            bytes_in: 0,
            bytes_out: 0,
            answer_ready: None,
            client_gone: None,
            ended: None,
            duration: None,
            upstream_error: None,
        },
    );
    state.record.update(|entry| {
        entry.requests = number;
        entry.health_requests += u64::from(asked.is_health());
    });
    let mut in_flight = InFlight::new(track.clone(), state.clone());

    let method = request.method().clone();
    let given = if role == Role::Main && !asked.is_health() && close_on_request::applies(&active.config.server, number) {
        // Read to its end first: unread bytes would turn a close into a reset.
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        Some(Answer::Raw {
            status: None,
            takeover: Takeover { bytes: Vec::new(), then: Then::Close(active.config.server.close_on_request_with) },
        })
    } else {
        // A task of its own: it runs to its end although hyper drops this future when the client goes, as application code does.
        tokio::spawn(answer(shared.clone(), state.clone(), track, asked, request)).await.ok()
    };
    match given {
        Some(Answer::Whole(mut response, payload)) => {
            let last = role == Role::Main && close_after_requests::announce(&active.config.server, number);
            if last || shared.phase() != Phase::Running {
                if http2 {
                    state.activity().goaway = true;
                    state.changed.notify_one();
                } else {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
            }
            let status = response.status();
            let bodiless = method == http::Method::HEAD || matches!(status.as_u16(), 204 | 304);
            Ok(response.map(|()| JournaledBody::new(payload, in_flight, status.as_u16(), bodiless)))
        }
        raw => {
            // A handler that panicked leaves its client with a closed connection.
            let (status, mut takeover) = match raw {
                Some(Answer::Raw { status, takeover }) => (status, takeover),
                _ => (None, Takeover { bytes: Vec::new(), then: Then::Close(Close::Fin) }),
            };
            in_flight.sent = status.map(|status| (status, takeover.bytes.len() as u64));
            match &mut takeover.then {
                Then::Close(close) => {
                    in_flight.ended = Some(if *close == Close::Fin { RequestEnd::ServerClosed } else { RequestEnd::ServerReset });
                    drop(in_flight);
                }
                Then::WebSocket(_, lasting) => *lasting = Some(in_flight),
            }
            state.take_over(takeover);
            // The driver drops this future together with hyper's connection.
            std::future::pending().await
        }
    }
}
