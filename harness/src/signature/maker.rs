//! Who made an answer: read off the response itself, and where it is silent, off the gateway's access log.

use gateways::sidecar;

use super::observation::Observations;
use crate::probe::{Outcome, Record};
use crate::scenario::Maker;

/// Set by every fake backend: the application's name.
pub const APPLICATION_HEADER: &str = "x-app";

pub fn maker(record: &Record, observations: &Observations) -> Maker {
    if record.outcome != Outcome::Answered && record.status.is_none() {
        return Maker::Nobody;
    }
    if record.header(APPLICATION_HEADER).is_some() {
        return Maker::Application;
    }
    if record.header("server") == Some(sidecar::SERVER) {
        return Maker::Sidecar;
    }
    // An answer without the application's header that the gateway had from behind it was made by the sidecar, whose texts are
    // known, or by the application below HTTP (such as the 400 of a TLS server to plain HTTP).
    match upstream_status(record, observations) {
        Some(status) if Some(status) == record.status => {
            if sidecar::LOCAL_REPLIES.iter().any(|text| record.body.starts_with(text)) {
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
    let lines = observations.gateway_log.iter().filter(|line| line.request_id == Some(record.request_id));
    lines.filter_map(|line| line.record.as_ref()).find_map(|line| line.answered)
}
