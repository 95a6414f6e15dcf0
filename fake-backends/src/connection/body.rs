//! A response body that tells the journal when it has been written, or that it never will be.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::track::InFlight;
use crate::{journal::RequestEnd, misbehaviour::stalled_body::Payload};

pub(crate) struct JournaledBody {
    payload: Payload,
    in_flight: InFlight,
}

impl JournaledBody {
    /// `bodiless`: the response has headers only (HEAD, 204, 304), so that a body nobody reads is no failure.
    pub(crate) fn new(payload: Payload, mut in_flight: InFlight, status: u16, bodiless: bool) -> JournaledBody {
        in_flight.sent = Some((status, 0));
        if bodiless || payload.is_end_stream() {
            in_flight.ended = Some(RequestEnd::Completed);
        }
        JournaledBody { payload, in_flight }
    }
}

impl Body for JournaledBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = Pin::new(&mut self.payload).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
            && let Some((_, bytes)) = &mut self.in_flight.sent
        {
            *bytes += data.len() as u64;
        }
        if self.payload.is_end_stream() {
            self.in_flight.ended = Some(RequestEnd::Completed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.payload.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.payload.size_hint()
    }
}
