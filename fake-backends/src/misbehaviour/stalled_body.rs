//! A body that stops midway.
//!
//! Mechanism: the headers promise the whole body, some of it is written, then nothing for a while or for ever, with the connection open.
//! A gateway has sent its 200 on by then; only its read timeout ends the wait.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::config::BodyPause;

const CHUNK: &[u8] = &[b'x'; 16 * 1024];

/// A response body: given text or filler of a given size, with an optional pause. Its length is always known in advance, but for one
/// with trailers, which a length would leave no room for.
pub(crate) struct Payload {
    text: Bytes,
    filler: u64,
    sent: u64,
    pause: Option<BodyPause>,
    waiting: Option<Pin<Box<Sleep>>>,
    trailers: Option<HeaderMap>,
}

impl Payload {
    pub(crate) fn text(text: impl Into<Bytes>) -> Payload {
        Payload { text: text.into(), filler: 0, sent: 0, pause: None, waiting: None, trailers: None }
    }

    pub(crate) fn filler(bytes: u64) -> Payload {
        Payload { filler: bytes, ..Payload::text(Bytes::new()) }
    }

    pub(crate) fn with_pause(self, pause: Option<BodyPause>) -> Payload {
        Payload { pause, ..self }
    }

    pub(crate) fn with_trailers(self, trailers: HeaderMap) -> Payload {
        Payload { trailers: Some(trailers), ..self }
    }

    fn remaining(&self) -> u64 {
        self.text.len() as u64 + self.filler
    }

    fn take(&mut self, limit: u64) -> Bytes {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let bytes = if self.text.is_empty() {
            let length = CHUNK.len().min(limit).min(usize::try_from(self.filler).unwrap_or(usize::MAX));
            self.filler -= length as u64;
            Bytes::from_static(&CHUNK[..length])
        } else {
            self.text.split_to(self.text.len().min(limit))
        };
        self.sent += bytes.len() as u64;
        bytes
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.remaining() == 0 {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let mut limit = u64::MAX;
        if let Some(pause) = self.pause {
            limit = pause.after.0.saturating_sub(self.sent);
            if limit == 0 {
                // Without a length the rest never comes; hyper polls again only when the connection has news.
                let Some(length) = pause.duration else { return Poll::Pending };
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(length)));
                std::task::ready!(waiting.as_mut().poll(context));
                self.pause = None;
                limit = u64::MAX;
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.take(limit)))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining() == 0 && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.trailers.is_some() {
            return SizeHint::default();
        }
        SizeHint::with_exact(self.remaining())
    }
}
