//! Several byte streams over one connection: by the first byte of each WebSocket message (`channel.k8s.io`), or as SPDY
//! streams.

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::spdy;
use super::upgrade::Socket;

pub(super) const V5: &str = "v5.channel.k8s.io";
pub(super) const V4: &str = "v4.channel.k8s.io";

/// Version 5: the other side has no more data for a channel.
pub(super) const CLOSE: u8 = 255;

const PIECE: usize = 16 * 1024;
/// Messages waiting for a slow client; the readers wait beyond that, and so the process that writes.
const WAITING: usize = 8;

/// The sending side of a WebSocket, shared by all channels.
pub(super) type Sender = mpsc::Sender<Message>;

/// Where the data of one stream goes.
#[derive(Clone)]
pub(super) enum Output {
    WebSocket(u8, Sender),
    Spdy(spdy::Sender),
}

impl Output {
    /// Returns false when the client is gone.
    pub async fn send(&self, data: &[u8]) -> bool {
        match self {
            Self::WebSocket(channel, sender) => sender.send(message(*channel, data)).await.is_ok(),
            Self::Spdy(sender) => sender.send(data).await,
        }
    }

    /// Sends all that a reader gives. Returns at its end, or when the client is gone.
    pub async fn pump(&self, mut from: impl AsyncRead + Unpin) {
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    if !self.send(&piece[..n]).await {
                        return;
                    }
                }
            }
        }
    }
}

/// Something a client sent over a WebSocket.
pub(super) struct Received {
    pub channel: u8,
    pub data: Bytes,
}

/// Splits a socket: messages put into the sender are written by a task of its own, which ends when all senders are gone
/// and then closes the WebSocket properly.
pub(super) fn open(socket: Socket) -> (Sender, Receiver, tokio::task::JoinHandle<()>) {
    let (sink, stream) = socket.split();
    let (sender, messages) = mpsc::channel(WAITING);
    let pongs = sender.downgrade();
    let writer = tokio::spawn(write(sink, messages));
    (sender, Receiver { stream, pongs }, writer)
}

async fn write(mut sink: SplitSink<Socket, Message>, mut messages: mpsc::Receiver<Message>) {
    while let Some(message) = messages.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    // Go clients take a close without a status code (1005) for an error.
    let end = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(end))).await;
    let _ = sink.close().await;
}

pub(super) struct Receiver {
    stream: SplitStream<Socket>,
    pongs: mpsc::WeakSender<Message>,
}

impl Receiver {
    /// The next message on a channel; `None` when the client has closed or is gone.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            let data = self.message().await?;
            if let Some(channel) = data.first() {
                return Some(Received { channel: *channel, data: data.slice(1..) });
            }
        }
    }

    async fn message(&mut self) -> Option<Bytes> {
        loop {
            match self.stream.next().await?.ok()? {
                Message::Binary(data) => return Some(data),
                Message::Text(text) => return Some(Bytes::copy_from_slice(text.as_bytes())),
                // tungstenite queues the pong by itself but sends it only with the next write or flush; an idle
                // session has neither.
                Message::Ping(_) => {
                    if let Some(sender) = self.pongs.upgrade() {
                        let _ = sender.try_send(Message::Pong(Bytes::new()));
                    }
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}

/// A WebSocket as a plain connection: binary messages are pieces of one byte stream each way.
pub(super) fn tunnel(socket: Socket) -> DuplexStream {
    let (near, far) = tokio::io::duplex(4 * PIECE);
    let (sender, mut receiver, _writer) = open(socket);
    let (mut from, mut to) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Some(data) = receiver.message().await {
            if to.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    });
    tokio::spawn(async move {
        let mut piece = vec![0; PIECE];
        while let Ok(n @ 1..) = from.read(&mut piece).await {
            if sender.send(Message::Binary(Bytes::copy_from_slice(&piece[..n]))).await.is_err() {
                return;
            }
        }
    });
    near
}

pub(super) fn message(channel: u8, data: &[u8]) -> Message {
    let mut framed = Vec::with_capacity(data.len() + 1);
    framed.push(channel);
    framed.extend_from_slice(data);
    Message::Binary(framed.into())
}
