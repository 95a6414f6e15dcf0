//! Links with latency and loss, in user space: frames are read from one end of a link and written to the other end
//! later, or never. The kernel's own emulator (netem) is a module that many machines lack; this behaves the same on all.
//!
//! Each link is a pair of packet sockets in a namespace of their own, and one thread serves all links; it sleeps until a
//! frame comes or the next one is due. Frames are handed over with their `virtio_net_hdr` (PACKET_VNET_HDR), so that
//! checksums left to the hardware, and segments that the sender has not cut yet (64 KiB at once), cross as they are.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use socket2::{Domain, SockAddr, Socket, Type};

use super::error::NetworkError;
use super::links;
use super::namespace_setup::{self, Role};
use super::netlink::NetlinkSocket;
use super::netns::Netns;

/// What a link holds at most in each direction; more is dropped, as by the queue of any real link. Enough for 200 ms at
/// one Gbit/s.
pub(super) const QUEUE_LIMIT: usize = 32 << 20;
/// A 64 KiB segment with its headers.
pub(super) const FRAME_LIMIT: usize = 80 << 10;
/// After this many frames of one end the others get their turn.
const FRAMES_PER_TURN: usize = 64;
const SOCKET_BUFFER: usize = 8 << 20;
/// `ETH_P_ALL`.
const ALL_PROTOCOLS: u16 = 0x0003;

/// How frames travel over one link, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Quality {
    pub(super) latency: Duration,
    /// Probability that a frame is lost.
    pub(super) loss: f64,
}

impl Quality {
    pub(super) fn is_perfect(&self) -> bool {
        self.latency.is_zero() && self.loss == 0.0
    }
}

/// Names a link of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkId(u32);

/// The namespace that all delaying links lead through, and the thread that serves them. The thread ends when this is
/// dropped.
pub(super) struct Wire {
    netns: Netns,
    route: NetlinkSocket,
    next_interface: u32,
    next_link: u32,
    orders: Sender<Order>,
    wake: UnixStream,
}

enum Order {
    Add(LinkId, Box<Link>),
    Set(LinkId, Quality),
    Remove(LinkId),
}

impl Wire {
    pub(super) fn create() -> Result<Self, NetworkError> {
        let (netns, route) = namespace_setup::create("wire", Role::Host)?;
        let system = |source| NetworkError::Kernel { action: "start the thread of the links".to_owned(), detail: None, source };
        let (orders, incoming) = channel();
        let (wake, woken) = UnixStream::pair().map_err(system)?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(system)?;
        }
        let carrier = Carrier { links: BTreeMap::new(), orders: incoming, woken };
        std::thread::Builder::new().name("net-wire".to_owned()).spawn(move || carrier.run()).map_err(system)?;
        Ok(Self { netns, route, next_interface: 2, next_link: 0, orders, wake })
    }

    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A number for an interface of the wire.
    pub(super) fn next_interface(&mut self) -> u32 {
        let index = self.next_interface;
        self.next_interface += 1;
        index
    }

    /// Sets both interfaces of the wire up, and carries frames between them from now on.
    pub(super) fn add_link(&mut self, ends: [u32; 2], quality: Quality) -> Result<LinkId, NetworkError> {
        self.route.request(&ends.map(links::set_up))?;
        let failed = |source| NetworkError::Kernel { action: "open the packet sockets of a link".to_owned(), detail: None, source };
        let sockets = self.netns.run_blocking(|| Ok([packet_socket(ends[0])?, packet_socket(ends[1])?]))?.map_err(failed)?;
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.order(Order::Add(id, Box::new(Link { ends: sockets, queues: Default::default(), quality })))?;
        Ok(id)
    }

    /// Changes a link for frames that enter it from now on; those on their way are not overtaken.
    pub(super) fn set(&mut self, link: LinkId, quality: Quality) -> Result<(), NetworkError> {
        self.order(Order::Set(link, quality))
    }

    pub(super) fn remove(&mut self, link: LinkId) -> Result<(), NetworkError> {
        self.order(Order::Remove(link))
    }

    fn order(&mut self, order: Order) -> Result<(), NetworkError> {
        let lost = || NetworkError::ThreadLost { action: "change a link".to_owned() };
        self.orders.send(order).map_err(|_| lost())?;
        match self.wake.write(&[1]) {
            Ok(_) => Ok(()),
            // Full: it will wake anyway.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(lost()),
        }
    }
}

struct Link {
    ends: [Socket; 2],
    /// By the end that frames came in at.
    queues: [Queue; 2],
    quality: Quality,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

/// The thread's side.
struct Carrier {
    links: BTreeMap<LinkId, Link>,
    orders: Receiver<Order>,
    woken: UnixStream,
}

impl Carrier {
    fn run(mut self) {
        let mut buffer = vec![0; FRAME_LIMIT];
        loop {
            let readable = match self.wait() {
                Ok(readable) => readable,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "the links with latency stand still");
                    return;
                }
            };
            if !self.take_orders() {
                return;
            }
            for (id, end) in readable {
                if let Some(link) = self.links.get_mut(&id) {
                    link.take_in(end, &mut buffer);
                }
            }
            let now = Instant::now();
            for link in self.links.values_mut() {
                link.deliver(now);
            }
        }
    }

    /// Sleeps until something is to be done, and says which ends have frames.
    fn wait(&self) -> nix::Result<Vec<(LinkId, usize)>> {
        let ends = self.links.iter().flat_map(|(id, link)| link.ends.iter().enumerate().map(move |(end, socket)| (*id, end, socket)));
        let mut descriptors = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        let mut names = Vec::new();
        for (id, end, socket) in ends {
            descriptors.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
            names.push((id, end));
        }
        let due = self.links.values().flat_map(|link| &link.queues).filter_map(|queue| queue.frames.front()).map(|(due, _)| *due).min();
        let timeout = due.map(|due| TimeSpec::from_duration(due.saturating_duration_since(Instant::now())));
        ppoll(&mut descriptors, timeout, None)?;
        let ready = descriptors.iter().skip(1).map(|descriptor| descriptor.any().unwrap_or(false));
        Ok(names.into_iter().zip(ready).filter_map(|(name, ready)| ready.then_some(name)).collect())
    }

    /// False when there is nobody left to give orders.
    fn take_orders(&mut self) -> bool {
        let mut ignored = [0; 64];
        match self.woken.read(&mut ignored) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        for order in self.orders.try_iter() {
            match order {
                Order::Add(id, link) => drop(self.links.insert(id, *link)),
                Order::Remove(id) => drop(self.links.remove(&id)),
                Order::Set(id, quality) => {
                    if let Some(link) = self.links.get_mut(&id) {
                        link.quality = quality;
                    }
                }
            }
        }
        true
    }
}

impl Link {
    fn take_in(&mut self, end: usize, buffer: &mut [u8]) {
        for _ in 0..FRAMES_PER_TURN {
            let Ok(length) = self.ends[end].read(buffer) else { return };
            let frame = &buffer[..length];
            let Quality { latency, loss } = self.quality;
            if loss > 0.0 && rand::random::<f64>() < loss {
                continue;
            }
            let queue = &mut self.queues[end];
            if queue.bytes + length > QUEUE_LIMIT {
                continue;
            }
            if latency.is_zero() && queue.frames.is_empty() {
                send(&self.ends[1 - end], frame);
                continue;
            }
            // Never before the one in front of it, also when the latency was lowered in between.
            let due = Instant::now() + latency;
            let due = queue.frames.back().map_or(due, |(last, _)| due.max(*last));
            queue.frames.push_back((due, frame.to_vec()));
            queue.bytes += length;
        }
    }

    fn deliver(&mut self, now: Instant) {
        for (end, queue) in self.queues.iter_mut().enumerate() {
            while queue.frames.front().is_some_and(|(due, _)| *due <= now)
                && let Some((_, frame)) = queue.frames.pop_front()
            {
                queue.bytes -= frame.len();
                send(&self.ends[1 - end], &frame);
            }
        }
    }
}

/// A frame that the kernel has no room for is lost, as on any link.
fn send(mut end: &Socket, frame: &[u8]) {
    if let Err(error) = end.write(frame) {
        tracing::debug!(%error, length = frame.len(), "a frame is lost on a link with latency");
    }
}

/// A socket for all frames of one interface of the calling thread's namespace.
pub(super) fn packet_socket(interface: u32) -> io::Result<Socket> {
    // Without a protocol it takes nothing until it is bound, so no other interface's frames get in.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
    set_option(&socket, libc::PACKET_VNET_HDR)?;
    // What this namespace's own stack may send is nobody's business.
    set_option(&socket, PACKET_IGNORE_OUTGOING)?;
    // More than the usual maximum needs CAP_NET_ADMIN over the whole machine.
    if force_buffers(&socket).is_err() {
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
    }
    socket.bind(&link_address(interface)?)?;
    Ok(socket)
}

/// A socket that sends whole frames by an interface, each with this mark; it takes nothing.
pub(super) fn sending_socket(interface: u32, mark: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
    set_option(&socket, libc::PACKET_VNET_HDR)?;
    socket.set_mark(mark)?;
    socket.bind(&address_without_protocol(interface)?)?;
    Ok(socket)
}

/// From <linux/if_packet.h>.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

fn set_option(socket: &Socket, option: libc::c_int) -> io::Result<()> {
    set_number(socket, libc::SOL_PACKET, option, 1)
}

fn force_buffers(socket: &Socket) -> io::Result<()> {
    for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        set_number(socket, libc::SOL_SOCKET, option, SOCKET_BUFFER as libc::c_int)?;
    }
    Ok(())
}

fn set_number(socket: &Socket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value outlives the call and has the length that is said.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn link_address(interface: u32) -> io::Result<SockAddr> {
    address(interface, ALL_PROTOCOLS)
}

/// Bound to it, a socket takes no frames.
fn address_without_protocol(interface: u32) -> io::Result<SockAddr> {
    address(interface, 0)
}

fn address(interface: u32, protocol: u16) -> io::Result<SockAddr> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: interface as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the storage is larger than any address of its families, and its length is set to what was written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link between two sockets that stand for interfaces; the other halves are what is plugged in.
    fn link(quality: Quality) -> (Link, [Socket; 2]) {
        let pair = || {
            let (inner, outer) = Socket::pair(Domain::UNIX, Type::DGRAM.nonblocking(), None).unwrap();
            (inner, outer)
        };
        let ((one, plugged_one), (two, plugged_two)) = (pair(), pair());
        (Link { ends: [one, two], queues: Default::default(), quality }, [plugged_one, plugged_two])
    }

    fn received(mut end: &Socket) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 16];
        while let Ok(length) = end.read(&mut buffer) {
            all.extend_from_slice(&buffer[..length]);
        }
        all
    }

    fn enter(link: &mut Link, plugged: &[Socket; 2], frame: u8) {
        (&plugged[0]).write_all(&[frame]).unwrap();
        link.take_in(0, &mut [0; 64]);
    }

    #[test]
    fn frames_wait_until_they_are_due() {
        let (mut link, plugged) = link(Quality { latency: Duration::from_secs(60), loss: 0.0 });
        enter(&mut link, &plugged, 1);
        link.deliver(Instant::now());
        assert_eq!(received(&plugged[1]), Vec::<u8>::new());
        link.deliver(Instant::now() + Duration::from_secs(61));
        assert_eq!(received(&plugged[1]), [1]);
        assert_eq!(link.queues[0].bytes, 0);
    }

    #[test]
    fn a_lowered_latency_lets_no_frame_overtake_another() {
        let (mut link, plugged) = link(Quality { latency: Duration::from_secs(60), loss: 0.0 });
        enter(&mut link, &plugged, 1);
        link.quality = Quality::default();
        enter(&mut link, &plugged, 2);
        link.deliver(Instant::now());
        assert_eq!(received(&plugged[1]), Vec::<u8>::new());
        link.deliver(Instant::now() + Duration::from_secs(61));
        assert_eq!(received(&plugged[1]), [1, 2]);
        enter(&mut link, &plugged, 3);
        assert_eq!(received(&plugged[1]), [3], "an empty queue and no latency: at once");
    }

    #[test]
    fn loss_is_a_share() {
        let (mut link, plugged) = link(Quality { latency: Duration::ZERO, loss: 0.5 });
        for frame in 0..200 {
            enter(&mut link, &plugged, frame);
        }
        let arrived = received(&plugged[1]);
        // Outside of this with a probability of some 1e-9.
        assert!((58..=142).contains(&arrived.len()), "{} of 200 arrived", arrived.len());
        assert!(arrived.is_sorted());
        link.quality.loss = 1.0;
        for frame in 0..200 {
            enter(&mut link, &plugged, frame);
        }
        assert_eq!(received(&plugged[1]), Vec::<u8>::new());
    }

    #[test]
    fn a_full_queue_drops_the_latest() {
        let (mut link, plugged) = link(Quality { latency: Duration::from_secs(60), loss: 0.0 });
        enter(&mut link, &plugged, 1);
        link.queues[0].bytes = QUEUE_LIMIT;
        enter(&mut link, &plugged, 2);
        assert_eq!(link.queues[0].frames.len(), 1);
    }
}
