//! Closing with RST instead of FIN.
//!
//! Mechanism: with SO_LINGER on and its time zero, close(2) throws unsent data away and sends RST (socket(7), tcp(7)). The peer's next
//! read fails with ECONNRESET.

use std::{io, os::fd::AsRawFd, time::Duration};

use nix::libc;
use socket2::SockRef;
use tokio::{net::TcpStream, time::sleep};

/// Makes the close of this socket a reset. To be called right before the drop.
pub(crate) fn arm(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Waits, at most a second, until the peer's kernel has acknowledged all that was written: a reset would throw away the rest.
pub(crate) async fn delivered(stream: &TcpStream) {
    for _ in 0..200 {
        if queued(stream, libc::TIOCOUTQ) == 0 {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Bytes that have arrived and that nobody has read.
pub(crate) fn unread(stream: &TcpStream) -> u64 {
    queued(stream, libc::FIONREAD)
}

fn queued(stream: &TcpStream, request: libc::Ioctl) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one int (tcp(7)) to the pointer, which lives until after the call; the descriptor is open.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), request, &raw mut bytes) };
    if result == 0 { u64::try_from(bytes).unwrap_or_default() } else { 0 }
}
