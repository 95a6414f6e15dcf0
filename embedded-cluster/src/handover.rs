//! Typed messages with file descriptors between a process and one it started from the same executable.
//!
//! The child gets its end as standard input, so that starting it needs no code between fork and exec: the standard
//! library can then use `posix_spawn`, which costs the same however large the parent is.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Larger messages travel in a memory file: one datagram must fit the socket's buffer (net.core.wmem_default).
const INLINE: usize = 16 * 1024;
const MAX_DESCRIPTORS: usize = 8;
const IN_DATAGRAM: u8 = b'd';
const IN_FILE: u8 = b'f';

/// One end of a connection; message boundaries are kept (SOCK_SEQPACKET).
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Both ends, close-on-exec.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(ours), theirs))
    }

    pub fn from_fd(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Sends a message; `descriptors` are duplicated into the receiver. Blocks while the receiver's queue is full.
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message).map_err(io::Error::other)?;
        let mut raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        if text.len() <= INLINE {
            return self.send_datagram(&[IoSlice::new(&[IN_DATAGRAM]), IoSlice::new(&text)], &raw);
        }
        let mut file = std::fs::File::from(memfd_create("message", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&text)?;
        raw.push(file.as_raw_fd());
        self.send_datagram(&[IoSlice::new(&[IN_FILE])], &raw)
    }

    fn send_datagram(&self, parts: &[IoSlice<'_>], descriptors: &[RawFd]) -> io::Result<()> {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control: &[ControlMessage<'_>] = if descriptors.is_empty() { &[] } else { &rights };
        // MSG_NOSIGNAL: a receiver that died is an error here, not the death of the whole process by SIGPIPE.
        sendmsg::<()>(self.0.as_raw_fd(), parts, control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// The next message; `None` when the other side has closed. Blocks.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; INLINE + 1];
        let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let (length, mut descriptors) = loop {
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
                Ok(received) => {
                    let mut descriptors = Vec::new();
                    for message in received.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(raw) = message {
                            // SAFETY: the kernel has just made these descriptors for this process.
                            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                        }
                    }
                    break (received.bytes, descriptors);
                }
                Err(nix::errno::Errno::EINTR) => {}
                // A peer that was killed with unread messages in its queue resets the connection.
                Err(nix::errno::Errno::ECONNRESET) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        };
        let message = match buffer.get(..length) {
            None | Some([]) => return Ok(None),
            Some([IN_FILE, ..]) => {
                let file = descriptors.pop().ok_or_else(|| io::Error::other("a message without its file"))?;
                let mut file = std::fs::File::from(file);
                file.rewind()?;
                let mut text = Vec::new();
                file.read_to_end(&mut text)?;
                serde_json::from_slice(&text)
            }
            Some([_, text @ ..]) => serde_json::from_slice(text),
        };
        Ok(Some((message.map_err(io::Error::other)?, descriptors)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_messages_arrive_with_their_descriptors() {
        for size in [3, 4 * 1024 * 1024] {
            let (ours, theirs) = Channel::pair().unwrap();
            let theirs = Channel::from_fd(theirs);
            let (reader, mut writer) = std::io::pipe().unwrap();
            let text = "x".repeat(size);
            ours.send(&text, &[reader.as_fd()]).unwrap();
            drop(reader);
            writer.write_all(b"through").unwrap();
            drop(writer);
            let (received, descriptors): (String, _) = theirs.receive().unwrap().unwrap();
            assert_eq!(received.len(), size);
            let mut through = String::new();
            std::fs::File::from(descriptors.into_iter().next().unwrap()).read_to_string(&mut through).unwrap();
            assert_eq!(through, "through");
        }
    }

    #[test]
    fn a_closed_peer_is_the_end() {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.send(&1, &[]).unwrap();
        drop(ours);
        let theirs = Channel::from_fd(theirs);
        assert_eq!(theirs.receive::<u8>().unwrap().map(|(n, _)| n), Some(1));
        assert!(theirs.receive::<u8>().unwrap().is_none());
    }
}
