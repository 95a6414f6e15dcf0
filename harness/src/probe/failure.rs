//! From an error of the kernel or of hyper to an [`Outcome`], by errno and kind, never by wording.

use std::error::Error;
use std::io;

use nix::errno::Errno;

use super::record::{Outcome, Phase};

/// Why an attempt was not answered.
#[derive(Clone, Debug)]
pub struct Failure {
    pub outcome: Outcome,
    pub phase: Phase,
    pub errno: Option<String>,
    pub detail: String,
}

impl Failure {
    pub fn new(outcome: Outcome, phase: Phase, detail: impl Into<String>) -> Self {
        Failure { outcome, phase, errno: None, detail: detail.into() }
    }

    pub fn timeout(phase: Phase) -> Self {
        Failure::new(Outcome::Timeout, phase, "deadline passed")
    }

    pub fn from_io(error: &io::Error, phase: Phase) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let outcome = match errno {
            Some(Errno::ECONNREFUSED) => Outcome::Refused,
            Some(Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNABORTED) => Outcome::Reset,
            // ETIMEDOUT: the kernel's own SYN retries ran out before the deadline.
            Some(Errno::ETIMEDOUT) => Outcome::Timeout,
            // EPERM and EACCES: an output rule refused to send (nftables drop in the own namespace).
            Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::ENETDOWN | Errno::EPERM | Errno::EACCES) => {
                Outcome::Unreachable
            }
            Some(_) => Outcome::ProbeError,
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof => Outcome::Closed,
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Outcome::Reset,
                io::ErrorKind::InvalidData => Outcome::TlsFailed,
                _ => Outcome::ProbeError,
            },
        };
        Failure { outcome, phase, errno: errno.map(|errno| format!("{errno:?}")), detail: error.to_string() }
    }

    /// `phase` is where the request stood: an end of stream within the body is [`Outcome::Truncated`].
    pub fn from_hyper(error: &hyper::Error, phase: Phase) -> Self {
        if let Some(io_error) = cause::<io::Error>(error) {
            // hyper reports an early end of a body as an I/O error without errno.
            let mut failure = Failure::from_io(io_error, phase);
            if phase == Phase::Body && io_error.raw_os_error().is_none() {
                failure.outcome = Outcome::Truncated;
            }
            return failure;
        }
        let of_http2 = cause::<h2::Error>(error);
        let outcome = if of_http2.is_some_and(|error| error.is_remote() && (error.is_reset() || error.is_go_away())) {
            // RST_STREAM or GOAWAY: HTTP/2's ways to reset.
            Outcome::Reset
        } else if of_http2.is_some_and(|error| error.reason().is_some()) {
            // This side's own complaint about what the peer sent.
            Outcome::Malformed
        } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            if phase == Phase::Body { Outcome::Truncated } else { Outcome::Closed }
        } else if error.is_parse() {
            Outcome::Malformed
        } else if phase == Phase::Body {
            Outcome::Truncated
        } else {
            Outcome::ProbeError
        };
        Failure::new(outcome, phase, with_causes(error))
    }
}

fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<E>() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
