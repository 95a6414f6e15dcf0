//! A network namespace held by a file descriptor.
//!
//! A namespace belongs to a thread, not to the process: every job inside one runs on a throw-away thread that enters it
//! and ends with the job, so that no executor thread ever sits in a foreign namespace. A socket stays in the namespace
//! it was created in, whichever thread uses it later; that is what makes the socket constructors here cheap.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use super::error::NetworkError;

/// How many connections wait for `accept` in listeners made here.
const LISTEN_BACKLOG: u32 = 1024;

mod ioctl {
    // From <linux/sockios.h>: a descriptor of the network namespace that a socket is in. Unlike /proc/thread-self/ns/net
    // it needs no mounted /proc.
    nix::ioctl_none_bad!(socket_namespace, 0x894C);
}

/// A handle of a network namespace; the namespace lives as long as a handle, a process or a socket in it.
#[derive(Clone)]
pub struct Netns {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    descriptor: OwnedFd,
}

impl std::fmt::Debug for Netns {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Netns").field("name", &self.inner.name).field("fd", &self.inner.descriptor.as_raw_fd()).finish()
    }
}

impl Netns {
    /// Makes a new, empty namespace; `name` is used in messages only.
    ///
    /// Blocks for about a millisecond. Fails with `EPERM` outside of a user namespace of one's own, unless root.
    pub fn create(name: &str) -> Result<Self, NetworkError> {
        Self::create_and(name, || Ok(())).map(|(namespace, ())| namespace)
    }

    /// As [`Netns::create`], and runs `first` inside on the same thread.
    pub(crate) fn create_and<T: Send>(
        name: &str,
        first: impl FnOnce() -> Result<T, NetworkError> + Send,
    ) -> Result<(Self, T), NetworkError> {
        let failed = |source: io::Error| NetworkError::Namespace { action: "create", namespace: name.to_owned(), source };
        run_on_thread(name, || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
            let descriptor = current_namespace().map_err(failed)?;
            let made = first()?;
            Ok((Self { inner: Arc::new(Inner { name: name.to_owned(), descriptor }) }, made))
        })?
    }

    /// The name given at creation, for messages.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Descriptor for `setns(2)`; close-on-exec.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner.descriptor.as_fd()
    }

    /// Moves the calling thread, for good, into the namespace. For children between fork and exec (it only makes one
    /// system call) and for threads that will do nothing else; never on an executor's thread.
    pub fn enter(&self) -> io::Result<()> {
        setns(self.fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }

    /// Runs `job` inside the namespace on a thread of its own and blocks until it is done.
    pub fn run_blocking<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T, NetworkError> {
        run_on_thread(self.name(), || {
            self.enter().map_err(|source| self.cannot_enter(source))?;
            Ok(job())
        })?
    }

    /// Runs `job` inside the namespace on a thread of its own. `job` may block; when the future is dropped it still
    /// runs to its end.
    pub async fn run<T, F>(&self, job: F) -> Result<T, NetworkError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let namespace = self.clone();
        std::thread::Builder::new()
            .name(thread_name(self.name()))
            .spawn(move || {
                let outcome = match namespace.enter() {
                    Ok(()) => Ok(job()),
                    Err(source) => Err(namespace.cannot_enter(source)),
                };
                drop(sender.send(outcome));
            })
            .map_err(|source| NetworkError::Namespace { action: "start a thread for", namespace: self.name().to_owned(), source })?;
        receiver.await.map_err(|_| NetworkError::ThreadLost { action: format!("run in network namespace \"{}\"", self.name()) })?
    }

    /// Connects to `address` from inside the namespace. Unbounded but for the kernel's own SYN retries (about two
    /// minutes): callers set their own time limit; dropping the future closes the socket.
    pub async fn tcp_connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(Domain::for_address(address), Type::STREAM).await?;
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    }

    /// Listens on `address` inside the namespace, with `SO_REUSEADDR`.
    pub async fn tcp_listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.socket(Domain::for_address(address), Type::STREAM).await?;
        let socket = TcpSocket::from_std_stream(socket.into());
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(LISTEN_BACKLOG)
    }

    /// Binds a UDP socket inside the namespace.
    pub async fn udp_bind(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(Domain::for_address(address), Type::DGRAM).await?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    }

    async fn socket(&self, domain: Domain, kind: Type) -> io::Result<Socket> {
        self.run(move || Socket::new(domain, kind.nonblocking(), None)).await.map_err(io::Error::other)?
    }

    fn cannot_enter(&self, source: io::Error) -> NetworkError {
        NetworkError::Namespace { action: "enter", namespace: self.name().to_owned(), source }
    }
}

fn run_on_thread<T: Send>(name: &str, job: impl FnOnce() -> T + Send) -> Result<T, NetworkError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(thread_name(name))
            .spawn_scoped(scope, job)
            .map_err(|source| NetworkError::Namespace { action: "start a thread for", namespace: name.to_owned(), source })?;
        thread.join().map_err(|_| NetworkError::ThreadLost { action: format!("work in network namespace \"{name}\"") })
    })
}

/// The kernel keeps 15 bytes of a thread's name.
fn thread_name(namespace: &str) -> String {
    let mut name = format!("net-{namespace}");
    while name.len() > 15 {
        name.pop();
    }
    name.replace('\0', "")
}

fn current_namespace() -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: the request takes no argument and the descriptor is open.
    let raw = unsafe { ioctl::socket_namespace(socket.as_raw_fd()) }?;
    // SAFETY: on success the request returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
