//! A request's way through the journal, whoever is the last to know of it: hyper, the handler, or the client that went away.

use std::sync::Arc;

use tokio::time::Instant;

use super::activity::ConnectionState;
use crate::{
    backend::Shared,
    journal::{Recorded, RequestEnd, RequestEntry},
};

/// What the handler and the connection both write to.
pub(crate) struct Track {
    shared: Arc<Shared>,
    record: Recorded<RequestEntry>,
    started: Instant,
    health: bool,
}

impl Track {
    pub(crate) fn begin(shared: Arc<Shared>, entry: RequestEntry) -> Arc<Track> {
        shared.metrics.requests_in_flight.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let health = entry.health;
        let record = Recorded::begin(&shared.journal, entry);
        Arc::new(Track { shared, record, started: Instant::now(), health })
    }

    pub(crate) fn request_body(&self, bytes: u64) {
        if bytes > 0 {
            self.record.update(|entry| entry.bytes_in = bytes);
        }
    }

    pub(crate) fn upstream_failed(&self, error: String) {
        self.record.update(|entry| entry.upstream_error = Some(error));
    }

    /// The handler is done. Applications mostly do not notice that a client has gone, and work on to the end.
    pub(crate) fn answer_ready(&self, end_if_gone: RequestEnd) {
        let ready = self.started.elapsed();
        let mut gone = false;
        self.record.update(|entry| {
            entry.answer_ready = Some(ready);
            gone = entry.client_gone.is_some();
        });
        if gone {
            self.finish(end_if_gone, None);
        }
    }

    /// hyper has dropped the request before its response was ready.
    fn client_gone(&self, end: RequestEnd) {
        let after = self.started.elapsed();
        let mut ready = false;
        self.record.update(|entry| {
            entry.client_gone = Some(after);
            ready = entry.answer_ready.is_some();
        });
        // Otherwise the handler is still at work and finishes the entry.
        if ready {
            self.finish(end, None);
        }
    }

    fn finish(&self, end: RequestEnd, sent: Option<(u16, u64)>) {
        let mut finished = None;
        self.record.update(|entry| {
            if let Some((status, bytes)) = sent {
                entry.status = Some(status);
                entry.bytes_out = bytes;
            }
            entry.duration = Some(self.started.elapsed());
            entry.ended = Some(end);
            finished = Some((entry.status, entry.duration.unwrap_or_default()));
        });
        if let Some((status, duration)) = finished {
            self.shared.metrics.request_ended(status, end, duration);
        }
    }
}

/// Held by whatever answers the request; dropped when nothing does any more.
pub(crate) struct InFlight {
    pub(crate) track: Arc<Track>,
    pub(crate) state: Arc<ConnectionState>,
    /// Status and body bytes, once the response's head is given to hyper.
    pub(crate) sent: Option<(u16, u64)>,
    pub(crate) ended: Option<RequestEnd>,
}

impl InFlight {
    pub(crate) fn new(track: Arc<Track>, state: Arc<ConnectionState>) -> InFlight {
        InFlight { track, state, sent: None, ended: None }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let end = self.ended.unwrap_or_else(|| self.state.request_cut_by());
        if self.ended.is_none() && self.sent.is_none() {
            self.track.client_gone(end);
        } else {
            if self.ended.is_none() && matches!(end, RequestEnd::ClientClosed | RequestEnd::ClientReset) {
                let after = self.track.started.elapsed();
                self.track.record.update(|entry| entry.client_gone = Some(after));
            }
            self.track.finish(end, self.sent);
        }
        self.state.request_ended(!self.track.health);
    }
}
