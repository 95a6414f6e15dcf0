//! The socket as hyper sees it: every byte counted, its end noticed, and removable from under hyper.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::activity::ConnectionState;

/// A stream with a TCP socket at its bottom.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn tcp(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Where the stream lies while hyper uses it. Only the connection's own task touches it, so the lock is never waited for.
#[derive(Debug)]
pub(crate) struct Slot<S>(Arc<Mutex<Option<S>>>);

impl<S> Slot<S> {
    pub(crate) fn new(stream: S) -> Slot<S> {
        Slot(Arc::new(Mutex::new(Some(stream))))
    }

    /// Takes the stream away; hyper's next read or write fails.
    pub(crate) fn take(&self) -> Option<S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn observed(&self, state: Arc<ConnectionState>) -> Observed<S> {
        Observed { slot: Slot(self.0.clone()), state }
    }
}

pub(crate) struct Observed<S> {
    slot: Slot<S>,
    state: Arc<ConnectionState>,
}

impl<S: Transport> Observed<S> {
    fn with<R>(&self, act: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        let mut slot = self.slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match slot.as_mut() {
            Some(stream) => act(Pin::new(stream)),
            None => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        drop(slot);
        if let Poll::Ready(Err(_)) = result {
            self.state.failed();
        }
        result
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = result {
            self.state.activity().bytes_out += bytes as u64;
        }
        result
    }
}

impl<S: Transport> AsyncRead for Observed<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let has_room = buffer.remaining() > 0;
        let result = self.with(|stream| stream.poll_read(context, buffer));
        if let Poll::Ready(Ok(())) = result
            && has_room
        {
            self.state.read(buffer.filled().len() - before);
        }
        result
    }
}

impl<S: Transport> AsyncWrite for Observed<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.with(|stream| stream.poll_write(context, bytes));
        self.wrote(result)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = self.with(|stream| stream.poll_write_vectored(context, bytes));
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.slot.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.with(|stream| stream.poll_flush(context));
        if let Poll::Ready(Ok(())) = result {
            self.state.flushed();
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(context))
    }
}
