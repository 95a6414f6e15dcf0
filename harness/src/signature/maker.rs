//! Who made an answer: read off the response itself, and where it is silent, off the gateway's access log.

use super::observation::{LogRecord, Observations};
use crate::probe::{Outcome, Record};
use crate::scenario::Maker;

/// Set by every fake backend: the application's name.
pub const APPLICATION_HEADER: &str = "x-app";

/// `server` of an Istio sidecar; a gateway may replace it.
const SIDECAR_SERVER: &str = "istio-envoy";

/// How Envoy's own answers begin (source/common/router/router.cc, source/common/http/utility.cc).
const ENVOY_LOCAL_REPLIES: [&str; 3] =
    ["upstream connect error or disconnect/reset before headers", "no healthy upstream", "upstream request timeout"];

pub fn maker(record: &Record, observations: &Observations) -> Maker {
    if record.outcome != Outcome::Answered && record.status.is_none() {
        return Maker::Nobody;
    }
    if record.header(APPLICATION_HEADER).is_some() {
        return Maker::Application;
    }
    if record.header("server") == Some(SIDECAR_SERVER) {
        return Maker::Sidecar;
    }
    // An answer without the application's header that the gateway had from behind it was made by the sidecar, whose texts are
    // known, or by the application below HTTP (such as the 400 of a TLS server to plain HTTP).
    match upstream_status(record, observations) {
        Some(status) if Some(status) == record.status => {
            if ENVOY_LOCAL_REPLIES.iter().any(|text| record.body.starts_with(text)) {
                Maker::Sidecar
            } else {
                Maker::Application
            }
        }
        _ => Maker::Gateway,
    }
}

/// Status that the gateway got from behind it for this request, according to its access log.
fn upstream_status(record: &Record, observations: &Observations) -> Option<u16> {
    observations.gateway_log.iter().filter(|line| line.request_id == Some(record.request_id)).find_map(|line| match &line.record {
        // For a try that failed nginx puts its own 502 or 504 into $upstream_status as well.
        LogRecord::NginxAccess { upstream_status, upstream_answered, .. } => {
            upstream_status.last().copied().flatten().filter(|_| upstream_answered.last() == Some(&true))
        }
        LogRecord::Envoy { status, response_code_details, .. } if response_code_details == "via_upstream" => Some(*status),
        // The second letter is the phase in which the session ended: D, L and - come behind the server's header, all others before it
        // (HAProxy's Configuration Manual, 8.5).
        LogRecord::Haproxy { status, termination_state, server: Some(_), .. }
            if matches!(termination_state.as_bytes().get(1), Some(b'D' | b'L' | b'-')) =>
        {
            u16::try_from(*status).ok()
        }
        _ => None,
    })
}
