//! One SPDY connection: frames in and out, streams opened by the other side.

use std::collections::{BTreeMap, HashMap};
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::headers;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;

const FIN: u8 = 1;
const VERSION: u16 = 3;

/// Larger frames are not sent by any client; they end the connection.
const FRAME: usize = 1024 * 1024;
/// Streams open at once.
const STREAMS: usize = 1024;
const WAITING: usize = 16;
const CANCEL: u32 = 5;

/// A stream that the client opened.
pub(in super::super) struct Stream {
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Ends when the client has no more data for it, or is gone.
    pub data: mpsc::Receiver<Bytes>,
    pub sender: Sender,
}

/// The sending side of a stream.
#[derive(Clone)]
pub(in super::super) struct Sender {
    id: u32,
    frames: mpsc::Sender<Vec<u8>>,
}

impl Sender {
    /// Returns false when the connection is gone.
    pub async fn send(&self, data: &[u8]) -> bool {
        self.frames.send(data_frame(self.id, 0, data)).await.is_ok()
    }

    /// No more data comes from this side.
    pub async fn finish(&self) {
        let _ = self.frames.send(data_frame(self.id, FIN, &[])).await;
    }

    pub async fn reset(&self) {
        let _ = self.frames.send(reset_frame(self.id)).await;
    }
}

pub(in super::super) struct Session {
    pub streams: mpsc::Receiver<Stream>,
    /// Cancelled when the connection is over.
    pub closed: CancellationToken,
    /// Dropping it ends the connection once everything is sent that was to be.
    _reader: AbortOnDropHandle<()>,
}

/// Runs a connection in tasks of its own; they end with it.
pub(in super::super) fn open<C: AsyncRead + AsyncWrite + Send + 'static>(connection: C) -> Session {
    let (reader, writer) = tokio::io::split(connection);
    let (frames, waiting) = mpsc::channel(WAITING);
    let (opened, streams) = mpsc::channel(WAITING);
    let closed = CancellationToken::new();
    let guard = closed.clone().drop_guard();
    tokio::spawn(write(writer, waiting));
    let reader = tokio::spawn(async move {
        let _guard = guard;
        let mut connection = Connection { reader, frames, opened, open: HashMap::new(), headers: headers::Reader::new(), replied: false };
        if let Err(error) = connection.run().await {
            tracing::debug!(%error, "a SPDY connection ended");
        }
    });
    Session { streams, closed, _reader: AbortOnDropHandle::new(reader) }
}

async fn write<C: AsyncWrite>(mut to: WriteHalf<C>, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if to.write_all(&frame).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

struct Connection<C> {
    reader: ReadHalf<C>,
    frames: mpsc::Sender<Vec<u8>>,
    opened: mpsc::Sender<Stream>,
    open: HashMap<u32, mpsc::Sender<Bytes>>,
    headers: headers::Reader,
    replied: bool,
}

impl<C: AsyncRead> Connection<C> {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let mut header = [0; 8];
            self.reader.read_exact(&mut header).await?;
            let [a, b, c, d, flags, length @ ..] = header;
            let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            if length > FRAME {
                return Err(io::Error::other("a frame is too large"));
            }
            let mut body = vec![0; length];
            self.reader.read_exact(&mut body).await?;
            if a & 0x80 == 0 {
                self.data(u32::from_be_bytes([a, b, c, d]), flags, body.into()).await;
            } else {
                self.control(u16::from_be_bytes([c, d]), flags, &body).await?;
            }
        }
    }

    async fn data(&mut self, id: u32, flags: u8, body: Bytes) {
        if let Some(stream) = self.open.get(&id)
            && !body.is_empty()
        {
            // Whoever does not read a stream any more has no use for its data.
            let _ = stream.send(body).await;
        }
        if flags & FIN != 0 {
            self.open.remove(&id);
        }
    }

    async fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> io::Result<()> {
        let id = body.first_chunk().map(|id| u32::from_be_bytes(*id) & 0x7fff_ffff);
        let malformed = || io::Error::other(format!("a frame of type {kind} is malformed"));
        match kind {
            SYN_STREAM => {
                let id = id.ok_or_else(malformed)?;
                let headers = body.get(10..).and_then(|block| self.headers.read(block)).ok_or_else(malformed)?;
                self.stream(id, flags, headers).await?;
            }
            RST_STREAM => drop(id.and_then(|id| self.open.remove(&id))),
            // Odd ids are the client's; its own come back to it.
            PING if id.is_some_and(|id| id % 2 == 1) => self.send(control_frame(PING, 0, body)).await?,
            GO_AWAY => {}
            _ => {}
        }
        Ok(())
    }

    async fn stream(&mut self, id: u32, flags: u8, headers: BTreeMap<String, String>) -> io::Result<()> {
        self.open.retain(|_, stream| !stream.is_closed());
        if self.open.len() >= STREAMS {
            return self.send(reset_frame(id)).await;
        }
        let mut reply = id.to_be_bytes().to_vec();
        reply.extend(headers::empty_block(!self.replied));
        self.replied = true;
        self.send(control_frame(SYN_REPLY, 0, &reply)).await?;
        let (sender, data) = mpsc::channel(WAITING);
        if flags & FIN == 0 {
            self.open.insert(id, sender);
        }
        let stream = Stream { headers, data, sender: Sender { id, frames: self.frames.clone() } };
        self.opened.send(stream).await.map_err(|_| io::Error::other("nobody takes streams any more"))
    }

    async fn send(&mut self, frame: Vec<u8>) -> io::Result<()> {
        self.frames.send(frame).await.map_err(|_| io::Error::other("the connection cannot be written to"))
    }
}

fn data_frame(id: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    framed(id.to_be_bytes(), flags, data)
}

fn control_frame(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let [a, b] = (0x8000 | VERSION).to_be_bytes();
    let [c, d] = kind.to_be_bytes();
    framed([a, b, c, d], flags, body)
}

fn reset_frame(id: u32) -> Vec<u8> {
    control_frame(RST_STREAM, 0, &[id.to_be_bytes(), CANCEL.to_be_bytes()].concat())
}

fn framed(head: [u8; 4], flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(8 + body.len());
    frame.extend(head);
    frame.push(flags);
    // Bodies are pieces of at most 16 KiB, far below the 24 bits that a length has.
    frame.extend(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes()[1..]);
    frame.extend(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame that opens a stream with no headers.
    fn open_stream(id: u32, first: bool) -> Vec<u8> {
        let body = [&id.to_be_bytes()[..], &[0; 6], &headers::empty_block(first)].concat();
        control_frame(SYN_STREAM, 0, &body)
    }

    async fn frame(from: &mut (impl AsyncRead + Unpin)) -> ([u8; 4], u8, Vec<u8>) {
        let mut head = [0; 8];
        from.read_exact(&mut head).await.unwrap();
        let mut body = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
        from.read_exact(&mut body).await.unwrap();
        ([head[0], head[1], head[2], head[3]], head[4], body)
    }

    #[tokio::test]
    async fn a_stream_carries_data_both_ways_and_ends() {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut session = open(server);
        client.write_all(&open_stream(1, true)).await.unwrap();
        client.write_all(&data_frame(1, 0, b"hello")).await.unwrap();
        client.write_all(&data_frame(1, FIN, b" there")).await.unwrap();
        let mut stream = session.streams.recv().await.unwrap();
        let (reply, _, body) = frame(&mut client).await;
        assert_eq!((reply, &body[..4]), ([0x80, 3, 0, 2], &[0, 0, 0, 1][..]));
        assert_eq!(stream.data.recv().await.unwrap(), "hello");
        assert_eq!(stream.data.recv().await.unwrap(), " there");
        assert!(stream.data.recv().await.is_none());
        stream.sender.send(b"bye").await;
        stream.sender.finish().await;
        assert_eq!(frame(&mut client).await, ([0, 0, 0, 1], 0, b"bye".to_vec()));
        assert_eq!(frame(&mut client).await, ([0, 0, 0, 1], FIN, vec![]));
        drop((session, stream));
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "the connection ends with its session");
    }

    #[tokio::test]
    async fn pings_are_answered_and_garbage_ends_the_connection() {
        let (mut client, server) = tokio::io::duplex(4096);
        let session = open(server);
        client.write_all(&control_frame(PING, 0, &7_u32.to_be_bytes())).await.unwrap();
        assert_eq!(frame(&mut client).await, ([0x80, 3, 0, 6], 0, vec![0, 0, 0, 7]));
        client.write_all(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]).await.unwrap();
        session.closed.cancelled().await;
    }
}
