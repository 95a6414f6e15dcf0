//! Clients attached to a container: its output goes to them as well as to its log, and their input into it.
//!
//! As containerd does it (`pkg/cri/io/container_io.go`): the output is written to all clients before more of it is read,
//! so a client that does not read holds up the container; and the end of a client's input ends its attachment, except
//! with `stdinOnce` and without a terminal, where it ends the container's input and the output goes on.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;

use super::log_file::Stream;
use super::terminal::Terminal;
use crate::runtime::{ExecProcess, TerminalSize};

/// Pieces of output waiting for a client.
const WAITING: usize = 8;

/// What is kept of a container's output until its first client comes; more, and the oldest is lost.
const EARLY: usize = 256 * 1024;

/// Where a container's input comes from: a pipe, or its terminal's master side.
pub(super) type Input = Box<dyn AsyncWrite + Send + Unpin>;

pub(super) struct Attachments {
    clients: Mutex<Clients>,
    /// `None` when the container takes no input, or none any more.
    input: tokio::sync::Mutex<Option<Input>>,
    /// The end of the first client's input is the container's.
    input_once: bool,
    terminal: Option<Terminal>,
}

#[derive(Default)]
struct Clients {
    attached: Vec<Client>,
    /// Output before the first client, for containers that are made for one.
    early: Option<Early>,
    next: u64,
    /// The container has ended.
    closed: bool,
}

struct Client {
    number: u64,
    stdout: mpsc::Sender<io::Result<Bytes>>,
    stderr: mpsc::Sender<io::Result<Bytes>>,
}

impl Client {
    fn output(&self, stream: Stream) -> &mpsc::Sender<io::Result<Bytes>> {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

#[derive(Default)]
struct Early {
    pieces: VecDeque<(Stream, Bytes)>,
    size: usize,
}

impl Early {
    fn push(&mut self, stream: Stream, data: &[u8]) {
        self.size += data.len();
        self.pieces.push_back((stream, Bytes::copy_from_slice(data)));
        while self.size > EARLY {
            let Some((_, oldest)) = self.pieces.pop_front() else { return };
            self.size -= oldest.len();
        }
    }

    fn of(&self, wanted: Stream) -> Vec<io::Result<Bytes>> {
        self.pieces.iter().filter(|(stream, _)| *stream == wanted).map(|(_, data)| Ok(data.clone())).collect()
    }
}

impl Attachments {
    /// `expects_client`: what the container writes before a client comes is kept for it.
    pub fn new(input: Option<Input>, terminal: Option<Terminal>, expects_client: bool, stdin_once: bool) -> Arc<Self> {
        let clients = Clients { early: expects_client.then(Early::default), ..Clients::default() };
        let input_once = stdin_once && terminal.is_none();
        Arc::new(Self { clients: Mutex::new(clients), input: tokio::sync::Mutex::new(input), input_once, terminal })
    }

    /// Gives a piece of output to all clients; waits for those that are slow to take it.
    pub async fn publish(&self, stream: Stream, data: &[u8]) {
        let receivers: Vec<_> = {
            let mut clients = self.clients();
            if let Some(early) = &mut clients.early {
                early.push(stream, data);
            }
            clients.attached.iter().map(|client| (client.number, client.output(stream).clone())).collect()
        };
        if receivers.is_empty() {
            return;
        }
        let piece = Bytes::copy_from_slice(data);
        for (number, receiver) in receivers {
            if receiver.send(Ok(piece.clone())).await.is_err() {
                self.detach(number);
            }
        }
    }

    /// The container has ended and all its output was published.
    pub fn close(&self) {
        let mut clients = self.clients();
        clients.closed = true;
        clients.attached.clear();
    }

    pub fn attach(self: &Arc<Self>, with_input: bool) -> io::Result<ExecProcess> {
        let ((stdout, from_stdout), (stderr, from_stderr)) = (mpsc::channel(WAITING), mpsc::channel(WAITING));
        let (number, early) = {
            let mut clients = self.clients();
            clients.next += 1;
            let number = clients.next;
            if !clients.closed {
                clients.attached.push(Client { number, stdout, stderr });
            }
            (number, clients.early.take().unwrap_or_default())
        };
        let output = |stream, receiver| -> Box<dyn AsyncRead + Send + Unpin> {
            Box::new(StreamReader::new(futures::stream::iter(early.of(stream)).chain(ReceiverStream::new(receiver))))
        };
        let stdout = output(Stream::Stdout, from_stdout);
        let stderr = self.terminal.is_none().then(|| output(Stream::Stderr, from_stderr));
        let stdin = with_input.then(|| self.clone().input_of(number));
        let resize = self.terminal.as_ref().map(resizing).transpose()?;
        let (exited, exit) = oneshot::channel();
        let _ = exited.send(0);
        Ok(ExecProcess { stdin, stdout: Some(stdout), stderr, resize, exit, guard: Box::new(Detach(self.clone(), number)) })
    }

    /// Carries one client's input into the container until either ends.
    fn input_of(self: Arc<Self>, number: u64) -> Input {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(WAITING);
        tokio::spawn(async move {
            while let Some(data) = receiver.recv().await {
                let mut input = self.input.lock().await;
                let Some(writer) = input.as_mut() else { break };
                if writer.write_all(&data).await.is_err() || writer.flush().await.is_err() {
                    *input = None;
                    break;
                }
            }
            // Whatever still comes has nowhere to go, but must not hold up the client.
            while receiver.recv().await.is_some() {}
            if self.input_once {
                *self.input.lock().await = None;
            } else {
                self.detach(number);
            }
        });
        let sink = PollSender::new(sender).sink_map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe));
        Box::new(SinkWriter::new(CopyToBytes::new(sink)))
    }

    fn detach(&self, number: u64) {
        self.clients().attached.retain(|client| client.number != number);
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Detach(Arc<Attachments>, u64);

impl Drop for Detach {
    fn drop(&mut self) {
        self.0.detach(self.1);
    }
}

/// Takes a client's window changes to a terminal.
pub(super) fn resizing(terminal: &Terminal) -> io::Result<mpsc::Sender<TerminalSize>> {
    let terminal = terminal.duplicate()?;
    let (sender, mut receiver) = mpsc::channel::<TerminalSize>(4);
    tokio::spawn(async move {
        while let Some(size) = receiver.recv().await {
            terminal.resize(size);
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, duplex};

    async fn all(stream: &mut Option<Box<dyn AsyncRead + Send + Unpin>>) -> String {
        let mut text = String::new();
        stream.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_first_client_misses_nothing_and_later_ones_come_in_midway() {
        let container = Attachments::new(None, None, true, false);
        container.publish(Stream::Stdout, b"one ").await;
        container.publish(Stream::Stderr, b"oops").await;
        let mut first = container.attach(false).unwrap();
        let mut second = container.attach(false).unwrap();
        container.publish(Stream::Stdout, b"two").await;
        container.close();
        assert_eq!((all(&mut first.stdout).await, all(&mut first.stderr).await), ("one two".to_owned(), "oops".to_owned()));
        assert_eq!(all(&mut second.stdout).await, "two");
        assert_eq!(first.exit.await, Ok(0));
    }

    #[tokio::test]
    async fn what_ended_before_its_client_came_is_still_shown() {
        let container = Attachments::new(None, None, true, true);
        container.publish(Stream::Stdout, b"done").await;
        container.close();
        assert_eq!(all(&mut container.attach(true).unwrap().stdout).await, "done");
        assert_eq!(all(&mut container.attach(true).unwrap().stdout).await, "", "and only once");
    }

    #[tokio::test]
    async fn little_is_kept_for_clients_that_do_not_come() {
        let container = Attachments::new(None, None, true, false);
        for _ in 0..100 {
            container.publish(Stream::Stdout, &[b'x'; 10_000]).await;
        }
        container.close();
        let kept = all(&mut container.attach(false).unwrap().stdout).await.len();
        assert!((EARLY - 10_000..=EARLY).contains(&kept), "{kept}");
    }

    #[tokio::test]
    async fn with_stdin_once_the_first_end_of_input_is_the_containers_and_output_goes_on() {
        let (ours, mut theirs) = duplex(100);
        let container = Attachments::new(Some(Box::new(ours)), None, true, true);
        let mut client = container.attach(true).unwrap();
        let mut stdin = client.stdin.take().unwrap();
        stdin.write_all(b"typed").await.unwrap();
        stdin.shutdown().await.unwrap();
        let mut got = String::new();
        theirs.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "typed");
        container.publish(Stream::Stdout, b"answer").await;
        container.close();
        assert_eq!(all(&mut client.stdout).await, "answer");
    }

    #[tokio::test]
    async fn without_stdin_once_the_end_of_input_ends_the_attachment_only() {
        let (ours, mut theirs) = duplex(100);
        let container = Attachments::new(Some(Box::new(ours)), None, true, false);
        let mut client = container.attach(true).unwrap();
        client.stdin.take().unwrap().shutdown().await.unwrap();
        assert_eq!(all(&mut client.stdout).await, "");
        let mut next = container.attach(true).unwrap();
        next.stdin.as_mut().unwrap().write_all(b"more").await.unwrap();
        let mut got = [0; 4];
        theirs.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"more");
    }
}
