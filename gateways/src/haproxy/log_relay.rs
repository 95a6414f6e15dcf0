//! HAProxy's log, from datagrams on loopback to the pod's log, word for word.
//!
//! HAProxy can write to standard output by itself, but its threads take turns there, and one that does not get its turn after 200
//! attempts drops its line (`fd_write_frag_line()` in src/fd.c): on a busy machine a line in some hundreds is missing. A datagram on
//! loopback is in the receiver's queue before `sendmsg` returns.

use std::{
    fs::File,
    io::{self, Write},
    net::{SocketAddr, UdpSocket},
    path::Path,
    thread::JoinHandle,
};

use nix::sys::socket::{setsockopt, sockopt};

/// Longer than `len` in the configuration.
const LONGEST: usize = 16 << 10;
/// What is waiting while this process does not get to run; the kernel gives what it allows.
const QUEUE: usize = 4 << 20;

/// A thread that copies lines.
#[derive(Debug)]
pub(super) struct LogRelay {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl LogRelay {
    /// Begins to copy what is sent to its address to a file, or to standard output.
    pub fn start(output: Option<&Path>) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        // Only as far as the machine's limits allow it, which is no error.
        let _ = setsockopt(&socket, sockopt::RcvBuf, &QUEUE);
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &QUEUE);
        let address = socket.local_addr()?;
        let mut target: Box<dyn Write + Send> = match output {
            Some(path) => Box::new(File::options().create(true).append(true).open(path)?),
            None => Box::new(io::stdout()),
        };
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || copy(&socket, &mut *target))?;
        Ok(Self { address, thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LogRelay {
    /// An empty datagram ends the thread. It is queued behind everything that was sent before.
    fn drop(&mut self) {
        let told = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(&[], self.address));
        if let (Ok(_), Some(thread)) = (told, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn copy(socket: &UdpSocket, target: &mut dyn Write) {
    let mut line = vec![0; LONGEST];
    loop {
        match socket.recv(&mut line) {
            Ok(0) => return,
            Ok(length) => {
                let mut text = line[..length].to_vec();
                if text.last() != Some(&b'\n') {
                    text.push(b'\n');
                }
                // One write for a line: HAProxy's own messages go to the same pipe.
                if target.write_all(&text).and_then(|()| target.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_arrives_whole_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let relay = LogRelay::start(Some(&path)).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let lines: Vec<String> = (0..100).map(|number| format!("{number} {}", "x".repeat(300))).collect();
        for line in &lines {
            sender.send_to(line.as_bytes(), relay.address()).unwrap();
        }
        drop(relay);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().collect::<Vec<_>>(), lines);
    }
}
