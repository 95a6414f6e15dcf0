//! Container output as a CRI log file: `<time> <stream> <F|P> <text>`, one line an output line.
//!
//! Format and partial lines as in containerd's `pkg/cri/io/logger.go`: a line longer than 16 KiB is cut into `P` pieces,
//! and so is what comes after the last newline.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::attachment::Attachments;

/// containerd's `max_container_log_line_size`.
const LONGEST_LINE: usize = 16 * 1024;
const READ_AT_ONCE: usize = 32 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Copies everything into the log, and to attached clients, until the stream ends. Whatever was read at once is written at once: a reader of the
/// file sees a line as soon as the container has written it.
///
/// The file is opened for appending, so both streams may write to it. Writing goes to memory (the page cache, or
/// tmpfs), which is why it may happen on an executor's thread.
pub(super) async fn record(mut from: impl AsyncRead + Unpin, stream: Stream, log: Arc<File>, clients: &Attachments) -> io::Result<()> {
    let mut lines = Lines::new(stream);
    let mut buffer = vec![0; READ_AT_ONCE];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return (&*log).write_all(lines.finish(Timestamp::now()));
        }
        (&*log).write_all(lines.push(&buffer[..read], Timestamp::now()))?;
        clients.publish(stream, &buffer[..read]).await;
    }
}

/// Cuts output into log lines; keeps at most one unfinished line.
struct Lines {
    stream: Stream,
    unfinished: Vec<u8>,
    formatted: Vec<u8>,
}

impl Lines {
    fn new(stream: Stream) -> Self {
        Self { stream, unfinished: Vec::new(), formatted: Vec::new() }
    }

    fn push(&mut self, output: &[u8], now: Timestamp) -> &[u8] {
        self.formatted.clear();
        for piece in output.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece {
                [text @ .., b'\n'] => (text, true),
                text => (text, false),
            };
            let mut text = text;
            while self.unfinished.len() + text.len() > LONGEST_LINE {
                let (head, rest) = text.split_at(LONGEST_LINE - self.unfinished.len());
                self.unfinished.extend_from_slice(head);
                self.put("P", now);
                text = rest;
            }
            self.unfinished.extend_from_slice(text);
            if complete {
                self.put("F", now);
            }
        }
        &self.formatted
    }

    fn finish(&mut self, now: Timestamp) -> &[u8] {
        self.formatted.clear();
        if !self.unfinished.is_empty() {
            self.put("P", now);
        }
        &self.formatted
    }

    fn put(&mut self, tag: &str, now: Timestamp) {
        let stream = match self.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        // Writing into memory cannot fail.
        let _ = write!(self.formatted, "{now:.9} {stream} {tag} ");
        self.formatted.append(&mut self.unfinished);
        self.formatted.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logged(pieces: &[&[u8]]) -> String {
        let now = Timestamp::new(1_700_000_000, 5).unwrap();
        let mut lines = Lines::new(Stream::Stdout);
        let mut all = Vec::new();
        for piece in pieces {
            all.extend_from_slice(lines.push(piece, now));
        }
        all.extend_from_slice(lines.finish(now));
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn lines_carry_nanoseconds_stream_and_tag() {
        let text = logged(&[b"one\ntw", b"o\n\nrest"]);
        let at = "2023-11-14T22:13:20.000000005Z stdout";
        assert_eq!(text, format!("{at} F one\n{at} F two\n{at} F \n{at} P rest\n"));
    }

    #[test]
    fn a_long_line_is_cut_and_ends_with_f() {
        let text = logged(&[&[b'x'; LONGEST_LINE + 10], b"y\n"]);
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(" stdout ").unwrap().1).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].len(), &lines[0][..2]), (LONGEST_LINE + 2, "P "));
        assert_eq!(lines[1], "F xxxxxxxxxxy");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_output_is_cut(output in "[a-c\n]{0,200}", cut in 1_usize..40) {
            let pieces: Vec<&[u8]> = output.as_bytes().chunks(cut).collect();
            let mut back = String::new();
            for line in logged(&pieces).lines() {
                let rest = line.split_once(" stdout ").unwrap().1;
                back.push_str(&rest[2..]);
                if rest.starts_with("F ") { back.push('\n'); }
            }
            prop_assert_eq!(back, output);
        }
    }
}
