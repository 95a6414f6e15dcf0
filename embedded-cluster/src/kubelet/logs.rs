//! Container logs: CRI log files (`<time> <stdout|stderr> <F|P> <text>`) read the way `kubectl logs` asks for them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::interface::LogOptions;

/// How much is sent in one piece.
const PIECE: usize = 32 * 1024;

/// Follows one log file. `ended` resolves when the container has ended and its whole output is in the file; without it
/// the file is read as it is.
pub(super) fn stream(path: PathBuf, options: LogOptions, ended: Option<BoxFuture<'static, ()>>) -> BoxStream<'static, io::Result<Bytes>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = copy(&path, &options, ended, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver).boxed()
}

type Sender = tokio::sync::mpsc::Sender<io::Result<Bytes>>;

async fn copy(path: &Path, options: &LogOptions, ended: Option<BoxFuture<'static, ()>>, sender: &Sender) -> io::Result<()> {
    // Watched before it is read, so that nothing written in between is missed.
    let changes = if ended.is_some() { Some(Changes::of(path)?) } else { None };
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::with_capacity(PIECE, file);
    let mut out = Output { sender, pending: Vec::new(), left: options.limit_bytes };
    let mut line = Vec::new();
    let mut tail: Option<VecDeque<Vec<u8>>> = options.tail_lines.map(|_| VecDeque::new());
    let mut ended = ended.map(FutureExt::fuse);
    let mut last_look = ended.is_none();
    loop {
        while reader.read_until(b'\n', &mut line).await? > 0 {
            if line.last() != Some(&b'\n') {
                // Half a line: the rest comes with the next change.
                break;
            }
            if let Some(text) = rendered(&line, options) {
                match (&mut tail, options.tail_lines) {
                    (Some(kept), Some(count)) => {
                        kept.push_back(text);
                        if kept.len() > count {
                            kept.pop_front();
                        }
                    }
                    _ => out.push(&text).await?,
                }
            }
            line.clear();
            if out.is_full() || sender.is_closed() {
                return out.flush().await;
            }
        }
        for text in tail.take().into_iter().flatten() {
            out.push(&text).await?;
        }
        out.flush().await?;
        if last_look || out.is_full() {
            return Ok(());
        }
        let (Some(changes), Some(ended)) = (&changes, &mut ended) else { return Ok(()) };
        tokio::select! {
            changed = changes.next() => changed?,
            () = ended => last_look = true,
            () = sender.closed() => return Ok(()),
        }
    }
}

struct Output<'a> {
    sender: &'a Sender,
    pending: Vec<u8>,
    left: Option<usize>,
}

impl Output<'_> {
    async fn push(&mut self, text: &[u8]) -> io::Result<()> {
        let count = self.left.map_or(text.len(), |left| left.min(text.len()));
        self.pending.extend_from_slice(&text[..count]);
        self.left = self.left.map(|left| left - count);
        if self.pending.len() >= PIECE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            let piece = std::mem::take(&mut self.pending);
            let _ = self.sender.send(Ok(piece.into())).await;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }
}

/// A log line as the reader wants it; `None` when it is too old or not a log line.
fn rendered(line: &[u8], options: &LogOptions) -> Option<Vec<u8>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (time, _stream, tag, text) = (fields.next()?, fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    if let Some(since) = options.since {
        let at: Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
        if at < since {
            return None;
        }
    }
    let mut rendered = Vec::with_capacity(line.len());
    if options.timestamps {
        rendered.extend_from_slice(time);
        rendered.push(b' ');
    }
    rendered.extend_from_slice(text);
    // A partial line goes on in the next one.
    if tag.first() == Some(&b'F') {
        rendered.push(b'\n');
    }
    Some(rendered)
}

/// The last 80 lines of a log, at most 2048 bytes of them (`MaxContainerTerminationMessageLogLines`).
pub(super) fn end(log: &[u8]) -> Vec<u8> {
    let options = LogOptions::default();
    let lines: Vec<Vec<u8>> = log.split_inclusive(|byte| *byte == b'\n').filter_map(|line| rendered(line, &options)).collect();
    let text = lines[lines.len().saturating_sub(80)..].concat();
    text[text.len().saturating_sub(2048)..].to_vec()
}

/// Tells when a file grew (inotify).
struct Changes {
    fd: AsyncFd<OwnedFd>,
}

impl Changes {
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: plain system calls; the descriptor is owned from the moment it is known to be valid.
        let fd = unsafe {
            let fd = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = OwnedFd::from_raw_fd(fd);
            if libc::inotify_add_watch(fd.as_raw_fd(), name.as_ptr(), libc::IN_MODIFY | libc::IN_CLOSE_WRITE) < 0 {
                return Err(io::Error::last_os_error());
            }
            fd
        };
        // SAFETY: the descriptor is owned, so it stays the same open file as long as it is registered.
        let fd = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE)? };
        Ok(Self { fd })
    }

    async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut buffer = [0_u8; 4096];
            let read = ready.try_io(|fd| {
                // SAFETY: reads into a buffer of the length given.
                let count = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
                if count < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            });
            match read {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.000000001Z stdout F one\n2026-01-01T00:00:02.5Z stderr P two \n2026-01-01T00:00:03Z stderr F halves\n2026-01-01T00:00:04Z stdout F four\n";

    async fn read(options: LogOptions) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        std::fs::write(&path, LOG).expect("written");
        let pieces: Vec<_> = stream(path, options, None).collect().await;
        pieces.into_iter().map(|piece| String::from_utf8(piece.expect("read").to_vec()).expect("text")).collect()
    }

    #[tokio::test]
    async fn lines_lose_their_prefix_and_halves_are_joined() {
        assert_eq!(read(LogOptions::default()).await, "one\ntwo halves\nfour\n");
    }

    #[test]
    fn the_end_of_a_log_is_bounded_in_lines_and_bytes() {
        assert_eq!(end(LOG.as_bytes()), b"one\ntwo halves\nfour\n");
        let long: String = (0..100).map(|n| format!("2026-01-01T00:00:01Z stdout F {n}\n")).collect();
        assert!(end(long.as_bytes()).starts_with(b"20\n21\n"));
        let wide = format!("2026-01-01T00:00:01Z stdout F {}\n", "x".repeat(5000));
        assert_eq!(end(wide.as_bytes()).len(), 2048);
    }

    #[tokio::test]
    async fn tail_since_timestamps_and_limit() {
        assert_eq!(read(LogOptions { tail_lines: Some(1), ..LogOptions::default() }).await, "four\n");
        assert_eq!(read(LogOptions { tail_lines: Some(0), ..LogOptions::default() }).await, "");
        let since = "2026-01-01T00:00:03Z".parse().ok();
        assert_eq!(read(LogOptions { since, ..LogOptions::default() }).await, "halves\nfour\n");
        let stamped = read(LogOptions { timestamps: true, tail_lines: Some(1), ..LogOptions::default() }).await;
        assert_eq!(stamped, "2026-01-01T00:00:04Z four\n");
        assert_eq!(read(LogOptions { limit_bytes: Some(5), ..LogOptions::default() }).await, "one\nt");
    }

    #[tokio::test]
    async fn following_ends_with_the_container_and_misses_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        let mut file = std::fs::File::create(&path).expect("created");
        writeln!(file, "2026-01-01T00:00:01Z stdout F first").expect("written");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let options = LogOptions { follow: true, tail_lines: Some(10), ..LogOptions::default() };
        let mut log = stream(path, options, Some(ended.map(drop).boxed()));
        let mut next = async || -> Option<Bytes> {
            tokio::time::timeout(Duration::from_secs(20), log.next()).await.expect("in time").map(|piece| piece.expect("read"))
        };
        assert_eq!(next().await.as_deref(), Some(&b"first\n"[..]));
        write!(file, "2026-01-01T00:00:02Z stdout F sec").expect("written");
        writeln!(file, "ond").expect("written");
        assert_eq!(next().await.as_deref(), Some(&b"second\n"[..]));
        writeln!(file, "2026-01-01T00:00:03Z stdout F last").expect("written");
        end.send(()).expect("followed");
        assert_eq!(next().await.as_deref(), Some(&b"last\n"[..]));
        assert_eq!(next().await, None);
    }
}
