//! `gatelab links`: latency and loss on the links of a real node, for clusters whose network is not the lab's own.
//!
//! netem would do it in the kernel, but is a module that many machines lack. So packets for pods of other nodes are taken at the
//! last moment, behind routing, Services, policies and translation (the netdev egress hook, Linux 5.16), forwarded into a veth pair,
//! read at its other end, and sent out of the node's own interface later, or never. The kernel's TCP, on both ends, sees a link that
//! is slow: nothing is terminated or answered on the way.
//!
//! A node's link delays what comes in as well, as the embedded cluster's links do: the sender waits for both links, its own and the
//! receiver's. What nodes themselves say to each other passes freely, so that a slow link troubles the application and not the
//! cluster, unless a link is cut: then the other nodes lose what they send to that node as well, and it falls silent.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use socket2::Socket;

use super::error::NetworkError;
use super::links::{self, VethEnd};
use super::netlink::NetlinkSocket;
use super::nftables::{Batch, DeviceChain, Expression, Register, Rule, destination_in, ether_type, not_marked};
use super::wire::{FRAME_LIMIT, QUEUE_LIMIT, Quality, packet_socket, sending_socket};

const TABLE: &str = "gatelab-links";
/// Ends of the veth pair: packets go in at the first and are read at the second.
const ENTRY: &str = "gatelab-entry";
const EXIT: &str = "gatelab-exit";
/// `SO_MARK` of what was held long enough; spells "gate".
const DONE: u32 = 0x6761_7465;
const DEVICE: Register = Register(0);
const IPV4: u16 = 0x0800;
/// PACKET_VNET_HDR puts this in front of a frame: `struct virtio_net_hdr`.
const OFFLOAD_HEADER: usize = 10;
const ETHERNET_HEADER: usize = 14;
const DESTINATION: usize = OFFLOAD_HEADER + ETHERNET_HEADER + 16;

/// How packets for some addresses travel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// Those of a node's pods, or the node's own.
    pub to: Ipv4Net,
    pub latency: Duration,
    /// Probability that a packet is lost.
    pub loss: f64,
}

/// Holds a node's outgoing packets up. Dropping it lets them pass again.
pub struct Outgoing {
    interface: String,
    filter: NetlinkSocket,
    entry: u32,
    orders: Sender<Vec<Path>>,
    wake: UnixStream,
}

impl Outgoing {
    /// Makes everything ready in the namespace of the calling thread; no packet is held yet. Needs CAP_NET_ADMIN and CAP_NET_RAW.
    ///
    /// # Errors
    /// When the kernel cannot do it, or there is no such interface.
    pub fn open(interface: &str) -> Result<Self, NetworkError> {
        let mut route = NetlinkSocket::open(libc::NETLINK_ROUTE)?;
        // Of an earlier agent that was killed.
        if let Ok(left) = if_nametoindex(ENTRY) {
            route.request(&[links::delete_link(left)])?;
        }
        let here = File::open("/proc/thread-self/ns/net").map_err(failed("name the network namespace"))?;
        let end = |name: &str, last| VethEnd { name: name.to_owned(), index: 0, mac: [2, 0x67, 0x61, 0x74, 0x65, last] };
        route.request(&[links::add_veth(&end(ENTRY, 1), &end(EXIT, 2), here.as_fd())])?;
        let [entry, exit, out] = [index(ENTRY)?, index(EXIT)?, index(interface)?];
        route.request(&[links::set_up(entry), links::set_up(exit)])?;
        links::wait_until_active(&mut route, entry)?;
        let arriving = packet_socket(exit).map_err(failed("read packets that are to be held"))?;
        let leaving = sending_socket(out, DONE).map_err(failed("send packets that were held"))?;
        let (orders, incoming) = channel();
        let (wake, woken) = UnixStream::pair().map_err(failed("start the thread of the links"))?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(failed("start the thread of the links"))?;
        }
        let holder = Holder { arriving, leaving, queues: Vec::new(), orders: incoming, woken };
        std::thread::Builder::new()
            .name("links".to_owned())
            .spawn(move || holder.run())
            .map_err(failed("start the thread of the links"))?;
        let filter = NetlinkSocket::open(libc::NETLINK_NETFILTER)?;
        let mut outgoing = Self { interface: interface.to_owned(), filter, entry, orders, wake };
        // A range that is nobody's: whether the kernel has all that it takes shows now, not when a link is to be slow.
        outgoing.install(&[Ipv4Net::from(Ipv4Addr::BROADCAST)])?;
        outgoing.install(&[])?;
        Ok(outgoing)
    }

    /// From now on packets travel like this; those on their way are not overtaken.
    ///
    /// # Errors
    /// When the kernel refuses the rules.
    pub fn set(&mut self, paths: Vec<Path>) -> Result<(), NetworkError> {
        let held: Vec<Ipv4Net> = paths.iter().filter(|path| path.loss > 0.0 || !path.latency.is_zero()).map(|path| path.to).collect();
        let lost = || NetworkError::ThreadLost { action: "change a link".to_owned() };
        self.orders.send(paths).map_err(|_| lost())?;
        match self.wake.write(&[1]) {
            Ok(_) => {}
            // Full: it will wake anyway.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(lost()),
        }
        self.install(&held)
    }

    /// Rules that lead packets for these addresses into the pair.
    fn install(&mut self, held: &[Ipv4Net]) -> Result<(), NetworkError> {
        let rules = held.iter().map(|to| {
            let take = vec![
                Expression::Counter,
                Expression::Immediate { into: DEVICE, value: self.entry.to_ne_bytes().to_vec() },
                Expression::Forward { device: DEVICE },
            ];
            Rule::new(format!("hold packets for {to}"), [ether_type(IPV4), not_marked(DONE), destination_in(*to), take])
        });
        let chain = DeviceChain { name: "outgoing", device: &self.interface };
        Batch::replacing_device_table(TABLE, &chain, &rules.collect::<Vec<_>>()).commit(&mut self.filter)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Err(error) = self.install(&[]) {
            tracing::warn!(%error, "packets of this node may be held for ever");
        }
    }
}

struct Queue {
    to: Ipv4Net,
    quality: Quality,
    frames: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

/// The thread's side.
struct Holder {
    arriving: Socket,
    leaving: Socket,
    queues: Vec<Queue>,
    orders: Receiver<Vec<Path>>,
    woken: UnixStream,
}

impl Holder {
    fn run(mut self) {
        let mut buffer = vec![0; FRAME_LIMIT];
        loop {
            match self.wait() {
                Ok(()) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the links stand still");
                    return;
                }
            }
            let mut ignored = [0; 64];
            // Nobody is left to give orders.
            if matches!(self.woken.read(&mut ignored), Ok(0)) {
                return;
            }
            for paths in self.orders.try_iter() {
                change(&mut self.queues, &paths);
            }
            while let Ok(length) = self.arriving.read(&mut buffer) {
                self.hold(&buffer[..length]);
            }
            let now = Instant::now();
            for queue in &mut self.queues {
                while let Some(frame) = due(queue, now) {
                    send(&self.leaving, &frame);
                }
            }
        }
    }

    fn wait(&self) -> nix::Result<()> {
        let mut descriptors = [PollFd::new(self.woken.as_fd(), PollFlags::POLLIN), PollFd::new(self.arriving.as_fd(), PollFlags::POLLIN)];
        let due = self.queues.iter().filter_map(|queue| queue.frames.front()).map(|(due, _)| *due).min();
        let timeout = due.map(|due| TimeSpec::from_duration(due.saturating_duration_since(Instant::now())));
        ppoll(&mut descriptors, timeout, None).map(drop)
    }

    fn hold(&mut self, frame: &[u8]) {
        match destination(frame).and_then(|address| self.queues.iter_mut().find(|queue| queue.to.contains(&address))) {
            Some(queue) => enqueue(queue, frame, Instant::now()),
            // Its rule has gone meanwhile.
            None => send(&self.leaving, frame),
        }
    }
}

/// Queues of paths that are no longer asked for stay until they are empty, at no latency for what comes.
fn change(queues: &mut Vec<Queue>, paths: &[Path]) {
    queues.retain_mut(|queue| {
        queue.quality = Quality::default();
        !queue.frames.is_empty() || paths.iter().any(|path| path.to == queue.to)
    });
    for path in paths {
        let quality = Quality { latency: path.latency, loss: path.loss };
        match queues.iter_mut().find(|queue| queue.to == path.to) {
            Some(queue) => queue.quality = quality,
            None => queues.push(Queue { to: path.to, quality, frames: VecDeque::new(), bytes: 0 }),
        }
    }
}

fn enqueue(queue: &mut Queue, frame: &[u8], now: Instant) {
    let Quality { latency, loss } = queue.quality;
    if (loss > 0.0 && rand::random::<f64>() < loss) || queue.bytes + frame.len() > QUEUE_LIMIT {
        return;
    }
    // Never before the one in front of it, also when the latency was lowered in between.
    let due = queue.frames.back().map_or(now + latency, |(last, _)| (now + latency).max(*last));
    queue.frames.push_back((due, frame.to_vec()));
    queue.bytes += frame.len();
}

fn due(queue: &mut Queue, now: Instant) -> Option<Vec<u8>> {
    queue.frames.front().filter(|(due, _)| *due <= now)?;
    let (_, frame) = queue.frames.pop_front()?;
    queue.bytes -= frame.len();
    Some(frame)
}

/// A frame that the kernel has no room for is lost, as on any link.
fn send(mut out: &Socket, frame: &[u8]) {
    if let Err(error) = out.write(frame) {
        tracing::debug!(%error, length = frame.len(), "a frame is lost on a link");
    }
}

fn destination(frame: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = frame.get(DESTINATION..DESTINATION + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn index(interface: &str) -> Result<u32, NetworkError> {
    if_nametoindex(interface).map_err(|errno| NetworkError::Kernel {
        action: format!("find the interface {interface}"),
        detail: None,
        source: errno.into(),
    })
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> NetworkError {
    move |source| NetworkError::Kernel { action: action.to_owned(), detail: None, source }
}
