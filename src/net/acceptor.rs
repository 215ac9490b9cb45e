//! Accepts sockets up to the connection limit, and gives them to the readers.
//!
//! Owns the listening socket and the readers; a shutdown reaches every connection through them.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::connection::Connection;
use super::http::Router;
use super::readers::Readers;
use super::sockets::{ConnectionPermit, Phase, Sockets};
use crate::metrics::Metrics;

/// Sockets the kernel queues until they are accepted: a reconnect storm comes within a second.
const BACKLOG: i32 = 4096;

/// First pause after a failed accept; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Time that `TCP_USER_TIMEOUT` adds to the stall timeout, which comes first because it gives a reason.
const DEAD_PEER_MARGIN: Duration = Duration::from_secs(5);

/// Time connections that were cut off have to end: that of a commit they may be at.
const CUT_OFF_WAIT: Duration = Duration::from_secs(5);

/// The answer to a socket beyond the limit; SDKs back off and try again.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";

/// The accepting thread and everything it started.
#[derive(Debug)]
pub(crate) struct Acceptor {
    address: SocketAddr,
    sockets: Arc<Sockets>,
    readers: Arc<Readers<Connection>>,
    thread: JoinHandle<()>,
}

/// Limits of sockets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketLimits {
    /// Most sockets at a time.
    pub(crate) connections_max: usize,
    /// Longest time a socket may take no byte.
    pub(crate) stall_timeout: Duration,
    /// Most threads that serve them.
    pub(crate) readers_max: usize,
}

impl Acceptor {
    /// Starts to accept on `address` (port 0: a free one).
    ///
    /// # Errors
    /// When the address cannot be used or the system gives no thread or file.
    pub(crate) fn start(
        address: SocketAddr,
        limits: SocketLimits,
        router: Router,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let listener = bind(address)?;
        let address = listener.local_addr()?;
        let sockets = Arc::new(Sockets::default());
        let readers = Readers::start(limits.readers_max, metrics.clone())?;
        let router = Arc::new(router);
        let accepting = AcceptLoop {
            listener,
            sockets: sockets.clone(),
            readers: readers.clone(),
            limits,
            router,
            metrics,
        };
        let spawned = thread::Builder::new().name("acceptor".into()).spawn(move || accepting.run());
        let thread = spawned.inspect_err(|_| readers.stop())?;
        Ok(Self { address, sockets, readers, thread })
    }

    /// The address it listens on.
    #[must_use]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, closes every connection with code 3001 and waits for the clients to go;
    /// connections left at `deadline` are aborted.
    pub(crate) fn stop(self, deadline: Instant) {
        self.sockets.enter(Phase::Stopping);
        // The thread blocks in accept; a connection to ourselves wakes it.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if self.thread.join().is_err() {
            tracing::error!("the acceptor panicked");
        }
        self.readers.wake_all();
        self.sockets.wait_until(deadline);
        self.sockets.enter(Phase::CutOff);
        self.readers.wake_all();
        self.sockets.wait_until(Instant::now() + CUT_OFF_WAIT);
        self.readers.stop();
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

struct AcceptLoop {
    listener: TcpListener,
    sockets: Arc<Sockets>,
    readers: Arc<Readers<Connection>>,
    limits: SocketLimits,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
}

impl AcceptLoop {
    fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            let accepted = self.listener.accept();
            if self.sockets.phase() != Phase::Serving {
                return;
            }
            match accepted.and_then(|(socket, peer)| self.serve(socket, peer)) {
                Ok(()) => pause = PAUSE_MIN,
                Err(error) => {
                    // Out of files, threads or memory: existing connections keep being served.
                    tracing::warn!(%error, "a connection could not be accepted; see docs/operations.md on system limits");
                    thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn serve(&self, socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
        if self.sockets.count() >= self.limits.connections_max {
            self.metrics.sockets_refused_total.with_label_values(&["full"]).inc();
            return refuse(&socket);
        }
        find_dead_peer(&socket, self.limits.stall_timeout + DEAD_PEER_MARGIN);
        let permit = ConnectionPermit::new(&self.sockets, &self.metrics);
        debug_assert!(
            self.sockets.count() <= self.limits.connections_max,
            "this thread alone adds sockets, below the limit"
        );
        let connection = Connection::new(socket, peer, permit, self.router.clone());
        let deadline = connection.deadline();
        self.readers.add(Box::new(connection), deadline)
    }
}

/// Lets the kernel end a connection whose peer acknowledges nothing for this long, even while no pong
/// is expected: a client that always has frames waiting is not judged by its pongs.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn find_dead_peer(socket: &TcpStream, patience: Duration) {
    if let Err(error) = SockRef::from(socket).set_tcp_user_timeout(Some(patience)) {
        tracing::debug!(%error, "the socket is already dead");
    }
}

/// Elsewhere the stall timeout and the pings find it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn find_dead_peer(_: &TcpStream, _: Duration) {}

/// Tells a client that the server is full, without waiting for it.
fn refuse(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match io::Write::write(&mut &*socket, FULL) {
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_is_told_when_to_give_up_on_a_peer() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        assert_eq!(SockRef::from(&socket).tcp_user_timeout().unwrap(), None);
        find_dead_peer(&socket, Duration::from_secs(65));
        assert_eq!(SockRef::from(&socket).tcp_user_timeout().unwrap(), Some(Duration::from_secs(65)));
    }
}
