//! Sending requests and reading their acknowledgements.

use std::io;

use netlink_sys::{Socket, SocketAddr};

use super::{Message, attributes_in};
use crate::network::error::NetworkError;

const ERROR_MESSAGE: u16 = libc::NLMSG_ERROR as u16;
const DONE_MESSAGE: u16 = libc::NLMSG_DONE as u16;
const MESSAGE_HEADER: usize = 16;
/// `NLM_F_ACK_TLVS`: attributes follow the error (extended acknowledgement).
const ATTRIBUTES_FOLLOW: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const EXPLANATION: u16 = 1;
/// Room for acknowledgements and, doubled by the kernel, for one batch; more than `net.core.wmem_max` is not granted to
/// ordinary users.
const SOCKET_BUFFER: i32 = 4 << 20;

/// A netlink socket of the namespace it was opened in, usable from any thread.
pub(crate) struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
    send_limit: usize,
}

/// One message the kernel sent back.
struct Reply<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl NetlinkSocket {
    /// Opens a socket in the calling thread's namespace; `protocol` is one of `NETLINK_ROUTE`, `NETLINK_NETFILTER`.
    pub(crate) fn open(protocol: libc::c_int) -> Result<Self, NetworkError> {
        Self::try_open(protocol).map_err(|source| NetworkError::Kernel { action: "open a netlink socket".to_owned(), detail: None, source })
    }

    fn try_open(protocol: libc::c_int) -> io::Result<Self> {
        let mut socket = Socket::new(protocol as isize)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Explanations are a nicety of newer kernels.
        drop(socket.set_ext_ack(true));
        drop(socket.set_cap_ack(true));
        socket.set_non_blocking(true)?;
        let reference = socket2::SockRef::from(&socket);
        reference.set_send_buffer_size(SOCKET_BUFFER as usize)?;
        reference.set_recv_buffer_size(SOCKET_BUFFER as usize)?;
        // The kernel refuses messages longer than the send buffer less its own overhead (EMSGSIZE).
        let send_limit = reference.send_buffer_size()?.saturating_sub(4096);
        Ok(Self { socket, sequence: 1, send_limit })
    }

    /// The longest run of bytes that can be sent at once.
    pub(crate) fn send_limit(&self) -> usize {
        self.send_limit
    }

    /// Sends independent requests at once; the kernel carries out each on its own, in order. The first error is returned.
    pub(crate) fn request(&mut self, messages: &[Message]) -> Result<(), NetworkError> {
        let first = self.sequence;
        let mut buffer = Vec::with_capacity(messages.iter().map(Message::len).sum());
        for message in messages {
            message.encode(self.next_sequence(), libc::NLM_F_ACK as u16, &mut buffer);
        }
        self.exchange(&buffer, first, messages, messages.len())
    }

    /// Sends requests that the kernel carries out together or not at all: `begin` and `end` delimit them.
    pub(crate) fn transaction(&mut self, begin: &Message, messages: &[Message], end: &Message) -> Result<(), NetworkError> {
        let Some((last, others)) = messages.split_last() else { return Ok(()) };
        let mut buffer = Vec::with_capacity(messages.iter().map(Message::len).sum::<usize>() + begin.len() + end.len());
        // A refused commit is reported under the sequence number of `begin`, hence one before the first message.
        begin.encode(self.next_sequence(), 0, &mut buffer);
        let first = self.sequence;
        for message in others {
            message.encode(self.next_sequence(), 0, &mut buffer);
        }
        // One acknowledgement says that the whole transaction was committed; refusals are always sent.
        last.encode(self.next_sequence(), libc::NLM_F_ACK as u16, &mut buffer);
        end.encode(self.next_sequence(), 0, &mut buffer);
        self.exchange(&buffer, first, messages, 1)
    }

    fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        sequence
    }

    fn exchange(&mut self, buffer: &[u8], first: u32, messages: &[Message], expected: usize) -> Result<(), NetworkError> {
        let purpose = |sequence: u32| {
            let index = sequence.wrapping_sub(first) as usize;
            messages.get(index).or(messages.first()).map_or_else(|| "talk to the kernel".to_owned(), |message| message.purpose.clone())
        };
        self.socket.send(buffer, 0).map_err(|source| NetworkError::Kernel { action: purpose(first), detail: None, source })?;
        let mut acknowledged = 0;
        let mut refused = None;
        self.read_replies(|reply| {
            if reply.kind != ERROR_MESSAGE {
                return Ok(());
            }
            let Some(code) = reply.payload.get(0..4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) else {
                return Err(NetworkError::Malformed {
                    action: purpose(reply.sequence),
                    detail: "an error message without a code".to_owned(),
                });
            };
            if code == 0 {
                acknowledged += 1;
            } else if refused.is_none() {
                refused = Some(NetworkError::Kernel {
                    action: purpose(reply.sequence),
                    detail: reply.explanation(),
                    source: io::Error::from_raw_os_error(-code),
                });
            }
            Ok(())
        })
        .map_err(|error| match error {
            ReadError::Socket(source) => {
                NetworkError::Kernel { action: format!("{} (reading the answer)", purpose(first)), detail: None, source }
            }
            ReadError::Content(error) => error,
        })?;
        match refused {
            Some(error) => Err(error),
            None if acknowledged < expected => {
                Err(NetworkError::Malformed { action: purpose(first), detail: format!("{acknowledged} of {expected} acknowledgements") })
            }
            None => Ok(()),
        }
    }

    /// Requests one object, or with `NLM_F_DUMP` among the message's flags all of them (the kernel sends those in
    /// portions, a further one whenever a portion was read), and hands each message (type and payload) to `each`.
    pub(crate) fn query(&mut self, message: &Message, mut each: impl FnMut(u16, &[u8])) -> Result<(), NetworkError> {
        let sequence = self.next_sequence();
        let mut buffer = Vec::new();
        message.encode(sequence, 0, &mut buffer);
        let failed = |source| NetworkError::Kernel { action: message.purpose.clone(), detail: None, source };
        self.socket.send(&buffer, 0).map_err(failed)?;
        let mut refused = None;
        self.read_replies(|reply| {
            if reply.kind == ERROR_MESSAGE {
                let code = reply.payload.get(0..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
                if code != 0 {
                    refused = Some(failed(io::Error::from_raw_os_error(-code)));
                }
            } else if reply.kind != DONE_MESSAGE && reply.sequence == sequence {
                each(reply.kind, reply.payload);
            }
            Ok(())
        })
        .map_err(|error| match error {
            ReadError::Socket(source) => failed(source),
            ReadError::Content(error) => error,
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// Reads what the kernel has queued; it queued everything it had to say before `sendmsg` returned.
    fn read_replies(&self, mut each: impl FnMut(Reply<'_>) -> Result<(), NetworkError>) -> Result<(), ReadError> {
        loop {
            let datagram = match self.socket.recv_from_full() {
                Ok((datagram, _)) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ReadError::Socket(error)),
            };
            let mut rest = datagram.as_slice();
            while let Some((reply, length)) = Reply::parse(rest) {
                each(reply).map_err(ReadError::Content)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

enum ReadError {
    Socket(io::Error),
    Content(NetworkError),
}

impl<'a> Reply<'a> {
    fn parse(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let payload = bytes.get(MESSAGE_HEADER..length)?;
        Some((Self { kind, flags, sequence, payload }, length))
    }

    /// The kernel's own words about an error, after the error code and the header of the refused message.
    fn explanation(&self) -> Option<String> {
        if self.flags & ATTRIBUTES_FOLLOW == 0 {
            return None;
        }
        let (_, text) = attributes_in(self.payload.get(4 + MESSAGE_HEADER..)?).find(|(kind, _)| *kind == EXPLANATION)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanation_is_found_after_the_refused_header() {
        let mut payload = (-22i32).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; MESSAGE_HEADER]);
        payload.extend_from_slice(&8u16.to_ne_bytes());
        payload.extend_from_slice(&2u16.to_ne_bytes());
        payload.extend_from_slice(&[0; 4]);
        payload.extend_from_slice(&9u16.to_ne_bytes());
        payload.extend_from_slice(&EXPLANATION.to_ne_bytes());
        payload.extend_from_slice(b"nope\0");
        let reply = Reply { kind: ERROR_MESSAGE, flags: ATTRIBUTES_FOLLOW, sequence: 1, payload: &payload };
        assert_eq!(reply.explanation().as_deref(), Some("nope"));
    }

    #[test]
    fn truncated_replies_end_the_reading() {
        assert!(Reply::parse(&[20, 0, 0, 0, 2, 0]).is_none());
        let mut bytes = 40u32.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[0; 20]);
        assert!(Reply::parse(&bytes).is_none());
    }
}
