//! What the embedded cluster asks of the kernel, tried for real in a child process that gives itself namespaces of its own and
//! then ends. The child is this executable with the hidden command [`COMMAND`]; it must try before any thread is started,
//! because the kernel gives a new user namespace to single-threaded processes only (unshare(2), EINVAL).

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket};
use nix::unistd::{getgid, getuid};
use serde::{Deserialize, Serialize};

/// Hidden command that runs [`try_all_if_asked`].
pub const COMMAND: &str = "doctor-namespaces";

/// Result of each attempt, in the order in which they were made; an error is the text of its errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub what: Feature,
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    UserNamespace,
    Mount,
    Veth,
    PacketSocket,
    Nftables,
}

/// Runs the child and reads what it found.
pub fn attempts() -> io::Result<Vec<Attempt>> {
    let executable = std::env::current_exe()?;
    let output = Command::new(executable).arg(COMMAND).stdin(Stdio::null()).output()?;
    serde_json::from_slice(&output.stdout).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// To be called first thing in `main`: does the child's work when the process was started for it.
pub fn try_all_if_asked() -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != COMMAND {
        return None;
    }
    let text = serde_json::to_string(&try_all()).unwrap_or_default();
    let written = io::stdout().lock().write_all(text.as_bytes());
    Some(if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn try_all() -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let mut attempt = |what, result: io::Result<()>| {
        let worked = result.is_ok();
        attempts.push(Attempt { what, error: result.err().map(|error| error.to_string()) });
        worked
    };
    let user = enter_user_namespace().or_else(|error| if getuid().is_root() { enter_as_root() } else { Err(error) });
    // Without a user namespace nothing else can be tried without touching the machine itself.
    if attempt(Feature::UserNamespace, user) {
        attempt(Feature::Mount, mount_tmpfs());
        attempt(Feature::Veth, make_veth());
        attempt(Feature::PacketSocket, packet_socket());
        attempt(Feature::Nftables, ask_nftables());
    }
    attempts
}

const OWN: CloneFlags = CloneFlags::CLONE_NEWNS.union(CloneFlags::CLONE_NEWNET);

fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | OWN)?;
    // user_namespaces(7): an unprivileged process must give up setgroups(2) before it may map its group.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn enter_as_root() -> io::Result<()> {
    Ok(unshare(OWN)?)
}

fn mount_tmpfs() -> io::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
}

fn packet_socket() -> io::Result<()> {
    Ok(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).map(drop)?)
}

/// `ip link add type veth`: RTM_NEWLINK with IFLA_LINKINFO { IFLA_INFO_KIND "veth" } (rtnetlink(7)).
fn make_veth() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const CREATE: u16 = 0x1 | 0x4 | 0x200 | 0x400; // REQUEST | ACK | EXCL | CREATE
    let kind = attribute(1, b"veth");
    let mut payload = vec![0u8; 16]; // struct ifinfomsg: any family, type and index
    payload.extend(attribute(18, &kind));
    request(SockProtocol::NetlinkRoute, RTM_NEWLINK, CREATE, &payload)
}

/// NFT_MSG_GETGEN: answered by every kernel with nf_tables, and changes nothing.
fn ask_nftables() -> io::Result<()> {
    const GETGEN: u16 = (10 << 8) | 16; // NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
    request(SockProtocol::NetlinkNetFilter, GETGEN, 0x1, &[0, 0, 0, 0])
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// Sends one netlink message and reads the answer (netlink(7)).
fn request(protocol: SockProtocol, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
    const NLMSG_ERROR: u16 = 2;
    let socket: OwnedFd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    let mut message = Vec::with_capacity(16 + payload.len());
    message.extend(((16 + payload.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(payload);
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0u8; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    if length < 20 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel's answer is too short"));
    }
    if u16::from_ne_bytes([answer[4], answer[5]]) == NLMSG_ERROR {
        // An acknowledgement is an error message with errno 0; errno is negative on the wire.
        let errno = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(-errno));
        }
    }
    Ok(())
}
