//! Accepts sockets and gives each a thread, up to the connection limit.
//!
//! Owns the listening socket and the list of sockets that have no outbox yet, so that a shutdown
//! reaches them too.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use socket2::{Domain, Socket, Type};

use super::{Services, routes};
use crate::ids::ConnectionId;
use crate::limits::READER_STACK_BYTES;

/// Files kept free for the database, the listening socket, logs and the like.
const FILES_RESERVED: u64 = 64;

/// Sockets the kernel queues until they are accepted: a reconnect storm comes within a second.
const BACKLOG: i32 = 4096;

/// First pause after a failed accept; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a socket gets that finds the server full; SDKs back off and come again.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";

/// Raises the file limit to the hard limit and says how many connections that allows.
#[must_use]
pub fn connections_allowed() -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    usize::try_from(files.saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX)
}

/// The accepting thread and everything it started.
#[derive(Debug)]
pub struct Acceptor {
    address: SocketAddr,
    sockets: Arc<Sockets>,
    thread: JoinHandle<()>,
}

/// Sockets being served, with a handle to shut each.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: Mutex<AHashMap<ConnectionId, Arc<TcpStream>>>,
    none_left: Condvar,
    stopping: AtomicBool,
}

impl Acceptor {
    /// Starts to accept on `address` (port 0: a free one), at most `connections_max` at a time.
    ///
    /// # Errors
    /// When the address cannot be used or the system gives no thread.
    pub fn start(address: SocketAddr, connections_max: usize, services: Arc<Services>) -> io::Result<Self> {
        let listener = bind(address)?;
        let address = listener.local_addr()?;
        let sockets = Arc::new(Sockets::default());
        let loop_ = AcceptLoop { listener, sockets: sockets.clone(), connections_max, services };
        let thread = thread::Builder::new().name("acceptor".into()).spawn(move || loop_.run())?;
        Ok(Self { address, sockets, thread })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more. Connections go on.
    pub fn stop_accepting(&self) {
        self.sockets.stopping.store(true, Ordering::Release);
        // The thread sits in accept; a connection of our own wakes it.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }

    /// Waits until every connection has ended; at `deadline` the rest is cut off.
    pub fn finish(self, deadline: Instant) {
        self.sockets.wait_until(deadline);
        self.sockets.cut_off();
        self.sockets.wait_until(Instant::now() + Duration::from_secs(5));
        if self.thread.join().is_err() {
            tracing::error!("the acceptor had panicked");
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Sockets {
    fn insert(&self, id: ConnectionId, socket: &Arc<TcpStream>) {
        self.lock().insert(id, socket.clone());
    }

    fn remove(&self, id: ConnectionId) {
        let mut open = self.lock();
        open.remove(&id);
        if open.is_empty() {
            self.none_left.notify_all();
        }
    }

    fn wait_until(&self, deadline: Instant) {
        let mut open = self.lock();
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            open = self.none_left.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn cut_off(&self) {
        for socket in self.lock().values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, AHashMap<ConnectionId, Arc<TcpStream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct AcceptLoop {
    listener: TcpListener,
    sockets: Arc<Sockets>,
    connections_max: usize,
    services: Arc<Services>,
}

impl AcceptLoop {
    fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            let accepted = self.listener.accept();
            if self.sockets.stopping.load(Ordering::Acquire) {
                return;
            }
            match accepted.and_then(|(socket, peer)| self.serve(socket, peer)) {
                Ok(()) => pause = PAUSE_MIN,
                Err(error) => {
                    // Out of files, threads or memory: those who are connected keep being served.
                    tracing::warn!(%error, "a connection could not be taken; see docs/operations.md on system limits");
                    thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn serve(&self, socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
        if self.sockets.lock().len() >= self.connections_max {
            self.services.metrics.sockets_refused_total.inc();
            return refuse(&socket);
        }
        let id = ConnectionId::next();
        let socket = Arc::new(socket);
        let place = Place { id, sockets: self.sockets.clone(), services: self.services.clone() };
        self.sockets.insert(id, &socket);
        self.services.metrics.sockets.inc();
        let thread = thread::Builder::new().name(format!("reader-{}", id.0)).stack_size(READER_STACK_BYTES);
        let spawned = thread.spawn(move || {
            let place = place;
            routes::serve(id, socket, peer, &place.services);
        });
        spawned.map(drop)
    }
}

/// Tells a client that the server is full, without waiting for it.
fn refuse(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match io::Write::write(&mut &*socket, FULL) {
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A connection's place in the count, given back however its thread ends.
struct Place {
    id: ConnectionId,
    sockets: Arc<Sockets>,
    services: Arc<Services>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.services.metrics.sockets.dec();
        self.sockets.remove(self.id);
    }
}
