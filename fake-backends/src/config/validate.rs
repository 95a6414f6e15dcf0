//! Settings that parse but cannot be meant. All mistakes are reported at once.

use super::{Config, Response};
use crate::Error;

impl Config {
    /// Checks what the types cannot say.
    pub fn validate(&self) -> Result<(), Error> {
        let mut mistakes = Vec::new();
        check_response("response", &self.response, &mut mistakes);
        for (index, route) in self.routes.iter().enumerate() {
            let at = format!("routes.{index}");
            if !route.path.starts_with('/') {
                mistakes.push(format!("{at}.path: `{}` does not begin with `/`", route.path));
            }
            check_response(&format!("{at}.response"), &route.response, &mut mistakes);
        }
        for (at, path) in [("health.liveness_path", &self.health.liveness_path), ("health.readiness_path", &self.health.readiness_path)] {
            if !path.starts_with('/') {
                mistakes.push(format!("{at}: `{path}` does not begin with `/`"));
            }
        }
        for (at, number) in [
            ("server.keepalive_requests", self.server.keepalive_requests),
            ("server.close_on_request", self.server.close_on_request),
            ("server.max_connections", self.server.max_connections.map(|n| n as u64)),
            ("lifetime.exit_after_requests", self.lifetime.exit_after_requests),
        ] {
            if number == Some(0) {
                mistakes.push(format!("{at}: 0 means nothing; counting begins at 1, leave the key out for `never`"));
            }
        }
        if http::HeaderValue::from_str(&self.name).is_err() || self.name.is_empty() {
            mistakes.push(format!("name: `{}` cannot be sent in a header", self.name.escape_debug()));
        }
        if let Some(tls) = &self.tls
            && tls.names.is_empty()
        {
            mistakes.push("tls.names: a certificate needs at least one name".to_owned());
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Error::InvalidConfig { mistakes }) }
    }
}

fn check_response(at: &str, response: &Response, mistakes: &mut Vec<String>) {
    // 1xx responses are interim (RFC 9110 section 15.2): a client goes on waiting for the final one.
    if let Some(status) = response.status
        && !(200..=599).contains(&status)
    {
        mistakes.push(format!("{at}.status: {status} is not a final HTTP status (200 to 599)"));
    }
    for (name, value) in &response.headers {
        if http::HeaderName::try_from(name.as_str()).is_err() || http::HeaderValue::from_str(value).is_err() {
            mistakes.push(format!("{at}.headers: `{name}: {value}` is not a valid header"));
        }
    }
    if response.body.is_some() && response.body_size.is_some() {
        mistakes.push(format!("{at}: `body` and `body_size` exclude each other"));
    }
    if let Some(websocket) = &response.websocket {
        if let Some(status) = websocket.required
            && !(400..=499).contains(&status)
        {
            mistakes.push(format!("{at}.websocket.required: {status} refuses nobody; write 426, or 400"));
        }
        // 1005 and 1006 stand for "no code" and "no close frame", and are never sent (RFC 6455 section 7.4.1).
        if let Some(code) = websocket.close_code
            && (!(1000..=4999).contains(&code) || matches!(code, 1004..=1006 | 1015))
        {
            mistakes.push(format!("{at}.websocket.close_code: {code} may not be sent; 1000 is a normal close, 1011 an error"));
        }
        if websocket.ping_interval.is_some_and(|interval| interval.is_zero()) {
            mistakes.push(format!("{at}.websocket.ping_interval: 0 means nothing; leave the key out for `never`"));
        }
    }
    if let Some(grpc) = &response.grpc {
        if grpc.status > 16 {
            mistakes.push(format!("{at}.grpc.status: {} is no gRPC status (0 to 16)", grpc.status));
        }
        if grpc.message.as_ref().is_some_and(|message| http::HeaderValue::from_str(message).is_err()) {
            mistakes.push(format!("{at}.grpc.message cannot be sent in a header"));
        }
    }
    if let Some(latency) = &response.latency
        && let Err(reason) = latency.validate()
    {
        mistakes.push(format!("{at}.latency: {reason}"));
    }
    if let Some(upstream) = &response.upstream
        && let Err(reason) = crate::upstream::Target::parse(&upstream.url)
    {
        mistakes.push(format!("{at}.upstream.url: {reason}"));
    }
}
