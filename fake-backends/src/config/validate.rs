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
