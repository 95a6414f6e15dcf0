//! The listening sockets: opened, closed and opened anew as the settings say.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpListener,
    select,
    sync::Notify,
    time::{sleep, sleep_until},
};

use crate::{
    Error,
    backend::{Active, Phase, Shared},
    config::Accept,
    connection::{Role, serve},
    misbehaviour::full_backlog::{self, Occupied},
};

const HEALTH_BACKLOG: u32 = 128;
/// Between two attempts to open a listener again.
const RETRY: Duration = Duration::from_millis(200);

/// What decides whether the listener has to be opened anew.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plan {
    address: SocketAddr,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Accepting {
        backlog: u32,
    },
    /// Mechanism of `accept: refuse`: no socket listens, so the kernel itself answers a SYN with RST.
    Closed,
    Full,
}

impl Plan {
    fn of(active: &Active) -> Plan {
        let server = &active.config.server;
        let kind = match server.accept {
            Accept::Serve | Accept::Silent | Accept::Reset => Kind::Accepting { backlog: server.backlog },
            Accept::Refuse => Kind::Closed,
            Accept::Never => Kind::Full,
        };
        Plan { address: server.listen, kind }
    }
}

/// An open main port.
enum Open {
    Accepting(TcpListener),
    Closed,
    /// Never read, only held.
    Full {
        _listener: TcpListener,
        _occupied: Occupied,
    },
}

/// Opens the main port, now or when `startup.listen_after` has passed, and follows the settings from then on.
pub(crate) async fn start_main(shared: &Arc<Shared>) -> Result<(), Error> {
    let active = shared.active();
    match active.config.startup.listen_after {
        Some(after) => {
            let shared = shared.clone();
            let opens_at = shared.started + after;
            tokio::spawn(async move {
                let mut phases = shared.phases();
                select! {
                    () = shared.gone.cancelled() => return,
                    // A process that is told to end before it listens never listens.
                    _ = phases.wait_for(|phase| *phase != Phase::Running) => return,
                    () = sleep_until(opens_at) => {}
                }
                main_port(&shared, None).await;
            });
        }
        None => {
            let open = open(shared, Plan::of(&active)).await?;
            let shared = shared.clone();
            tokio::spawn(async move { main_port(&shared, Some((Plan::of(&active), open))).await });
        }
    }
    Ok(())
}

/// Keeps the main port as the settings want it until the backend stops listening.
async fn main_port(shared: &Arc<Shared>, mut opened: Option<(Plan, Open)>) {
    let mut settings = shared.settings();
    let mut phases = shared.phases();
    loop {
        let wanted = Plan::of(&settings.borrow_and_update());
        let (plan, open) = match opened.take() {
            Some((plan, open)) if plan == wanted => (plan, open),
            other => {
                // The old listener goes first: both would have the same address.
                drop(other);
                match open(shared, wanted).await {
                    Ok(open) => (wanted, open),
                    Err(error) => {
                        tracing::error!(%error, "cannot open the main port, trying again");
                        sleep(RETRY).await;
                        continue;
                    }
                }
            }
        };
        shared.listening.store(matches!(open, Open::Accepting(_)), Ordering::Relaxed);
        let done = select! {
            () = shared.gone.cancelled() => true,
            _ = phases.wait_for(|phase| matches!(phase, Phase::Finishing | Phase::Stopped(_))) => true,
            changed = settings.changed() => changed.is_err(),
            () = accept(shared, &open) => false,
        };
        if done {
            shared.listening.store(false, Ordering::Relaxed);
            return;
        }
        opened = Some((plan, open));
    }
}

/// Accepts for as long as nothing changes.
async fn accept(shared: &Arc<Shared>, open: &Open) {
    let listener = match open {
        Open::Accepting(listener) => listener,
        Open::Closed | Open::Full { .. } => std::future::pending().await,
    };
    loop {
        if let Some(limit) = shared.active().config.server.max_connections {
            shared.slots.wait_below(limit).await;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                let slot = Slot::take(&shared.slots);
                let (shared, tracker) = (shared.clone(), shared.connections.clone());
                tracker.spawn(async move {
                    let gone = shared.gone.clone();
                    select! {
                        biased;
                        () = gone.cancelled() => {}
                        () = serve(shared, Role::Main, stream, peer) => {}
                    }
                    drop(slot);
                });
            }
            // Out of descriptors, or a connection that was gone before accept(2): neither ends a server.
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn open(shared: &Shared, plan: Plan) -> Result<Open, Error> {
    let mut address = plan.address;
    let known = *shared.address.lock().unwrap_or_else(PoisonError::into_inner);
    // Port 0 is chosen once, or a listener that is closed and opened again would move.
    if let Some(known) = known
        && address.port() == 0
        && known.ip() == address.ip()
    {
        address.set_port(known.port());
    }
    let failed = |source| Error::Listen { role: "main port", address, source };
    let socket = bind(address).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    *shared.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(bound);
    match plan.kind {
        Kind::Closed => Ok(Open::Closed),
        Kind::Accepting { backlog } => Ok(Open::Accepting(listen(&socket, backlog).map_err(failed)?)),
        Kind::Full => {
            let listener = listen(&socket, full_backlog::BACKLOG).map_err(failed)?;
            let occupied = full_backlog::occupy(bound).await?;
            Ok(Open::Full { _listener: listener, _occupied: occupied })
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Or connections in TIME_WAIT would forbid a listener that is closed and opened again.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(socket: &Socket, backlog: u32) -> io::Result<TcpListener> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.try_clone()?.into())
}

/// Opens the health port, which stays open to the end of the process.
pub(crate) fn start_health(shared: &Arc<Shared>, address: SocketAddr) -> Result<SocketAddr, Error> {
    let failed = |source| Error::Listen { role: "health port", address, source };
    let listener = bind(address).and_then(|socket| listen(&socket, HEALTH_BACKLOG)).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let shared = shared.clone();
    tokio::spawn(async move {
        let gone = shared.gone.clone();
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let shared = shared.clone();
                        tokio::spawn(async move {
                            let gone = shared.gone.clone();
                            gone.run_until_cancelled_owned(serve(shared, Role::Health, stream, peer)).await
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        };
        gone.run_until_cancelled(accept).await
    });
    Ok(bound)
}

/// Counts the connections of the main port.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    open: AtomicUsize,
    freed: Notify,
}

impl Slots {
    async fn wait_below(&self, limit: usize) {
        while self.open.load(Ordering::Relaxed) >= limit {
            self.freed.notified().await;
        }
    }
}

/// One connection's place; given back on drop.
struct Slot(Arc<Slots>);

impl Slot {
    fn take(slots: &Arc<Slots>) -> Slot {
        slots.open.fetch_add(1, Ordering::Relaxed);
        Slot(slots.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}
