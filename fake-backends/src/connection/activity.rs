//! What is going on on a connection, shared by its socket, its requests and its driver.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::{sync::Notify, time::Instant};

use super::track::InFlight;
use crate::{
    config::{Close, WebSocket},
    journal::{ConnectionEnd, ConnectionEntry, Recorded, RequestEnd},
};

/// How the client went away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ClientEnd {
    Closed,
    Reset,
}

/// Bytes to be written in hyper's place, and what becomes of the connection then.
pub(crate) struct Takeover {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

/// After a takeover.
pub(crate) enum Then {
    Close(Close),
    /// The connection has changed its protocol; the request lasts as long as it does.
    WebSocket(WebSocket, Option<InFlight>),
}

pub(crate) struct Activity {
    pub(crate) accepted: Instant,
    /// Requests whose headers were read.
    pub(crate) requests: u64,
    pub(crate) in_flight: u32,
    /// End of the last response, flushed, with nothing read since.
    pub(crate) idle_since: Option<Instant>,
    /// Responses that have ended and may still lie in a write buffer.
    unflushed: u64,
    /// Responses handed to the kernel.
    pub(crate) flushed: u64,
    /// Of those, the ones that were not health checks and that nobody has counted yet.
    uncounted: u64,
    unflushed_counted: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) client_end: Option<ClientEnd>,
    /// Set when this side decides to close.
    pub(crate) closing: Option<ConnectionEnd>,
    pub(crate) takeover: Option<Takeover>,
    pub(crate) http2: bool,
    /// HTTP/2 has no `Connection: close`; the driver sends GOAWAY instead.
    pub(crate) goaway: bool,
}

pub(crate) struct ConnectionState {
    pub(crate) id: u64,
    pub(crate) record: Recorded<ConnectionEntry>,
    /// Wakes the driver.
    pub(crate) changed: Notify,
    activity: Mutex<Activity>,
}

impl ConnectionState {
    pub(crate) fn new(id: u64, record: Recorded<ConnectionEntry>) -> ConnectionState {
        let activity = Activity {
            accepted: Instant::now(),
            requests: 0,
            in_flight: 0,
            idle_since: None,
            unflushed: 0,
            flushed: 0,
            uncounted: 0,
            unflushed_counted: 0,
            bytes_in: 0,
            bytes_out: 0,
            client_end: None,
            closing: None,
            takeover: None,
            http2: false,
            goaway: false,
        };
        ConnectionState { id, record, changed: Notify::new(), activity: Mutex::new(activity) }
    }

    pub(crate) fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request's headers are complete. Returns its number on the connection.
    pub(crate) fn request_started(&self, http2: bool) -> u64 {
        let mut activity = self.activity();
        activity.requests += 1;
        activity.in_flight += 1;
        activity.idle_since = None;
        activity.http2 = http2;
        activity.requests
    }

    /// A response has ended, or never will be given.
    pub(crate) fn request_ended(&self, counted: bool) {
        let mut activity = self.activity();
        activity.in_flight = activity.in_flight.saturating_sub(1);
        activity.unflushed += 1;
        activity.unflushed_counted += u64::from(counted);
        if activity.http2 {
            // Streams end in tasks of their own, maybe after their last frame was flushed: the driver has to look.
            self.changed.notify_one();
        }
    }

    pub(crate) fn read(&self, bytes: usize) {
        let mut activity = self.activity();
        if bytes == 0 {
            activity.client_end.get_or_insert(ClientEnd::Closed);
        } else {
            activity.bytes_in += bytes as u64;
            // On HTTP/2 only a new stream is activity; WINDOW_UPDATE, PING and SETTINGS come on idle connections too.
            if !activity.http2 && activity.idle_since.take().is_some() {
                self.changed.notify_one();
            }
        }
    }

    pub(crate) fn failed(&self) {
        self.activity().client_end.get_or_insert(ClientEnd::Reset);
    }

    pub(crate) fn flushed(&self) {
        let mut activity = self.activity();
        if activity.unflushed == 0 {
            return;
        }
        activity.flushed += std::mem::take(&mut activity.unflushed);
        activity.uncounted += std::mem::take(&mut activity.unflushed_counted);
        if activity.in_flight == 0 {
            activity.idle_since = Some(Instant::now());
        }
        self.changed.notify_one();
    }

    /// Whether an HTTP/2 response has ended since the last flush.
    pub(crate) fn awaits_flush(&self) -> bool {
        let activity = self.activity();
        activity.http2 && activity.unflushed > 0
    }

    /// Responses flushed since the last call.
    pub(crate) fn take_uncounted(&self) -> u64 {
        std::mem::take(&mut self.activity().uncounted)
    }

    /// Asks the driver to take the socket away from hyper.
    pub(crate) fn take_over(&self, takeover: Takeover) {
        self.activity().takeover = Some(takeover);
        self.changed.notify_one();
    }

    /// Why a response on this connection could not be finished.
    pub(crate) fn request_cut_by(&self) -> RequestEnd {
        let activity = self.activity();
        match (activity.closing, activity.client_end) {
            (Some(ConnectionEnd::ServerReset | ConnectionEnd::IdleReset), _) => RequestEnd::ServerReset,
            (Some(_), _) => RequestEnd::ServerClosed,
            (None, Some(ClientEnd::Closed)) => RequestEnd::ClientClosed,
            // On HTTP/2 a client gives a request up by RST_STREAM, with the connection open.
            (None, Some(ClientEnd::Reset) | None) => RequestEnd::ClientReset,
        }
    }
}
