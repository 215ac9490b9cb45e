//! Accepts sockets that the limits allow, and gives them to the readers.
//!
//! Owns the listening socket and the readers; a shutdown reaches every connection through them.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockRef, Socket, Type};

use super::connection::Connection;
use super::http::{Response, Router};
use super::peers::{Peers, Refusal};
use super::readers::Readers;
use super::sockets::{ConnectionPermit, Phase, Sockets};
use crate::config::Config;
use crate::metrics::Metrics;

/// Sockets the kernel queues until they are accepted: a reconnect storm comes within a second.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel takes for a socket and does not send yet: twice a chunk of a catch-up.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SOCKET_UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// First pause after a failed accept; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Time that `TCP_USER_TIMEOUT` adds to the stall timeout, which comes first because it gives a reason.
const DEAD_PEER_MARGIN: Duration = Duration::from_secs(5);

/// Time connections that were cut off have to end: that of a commit they may be at.
const CUT_OFF_WAIT: Duration = Duration::from_secs(5);

/// Longest time without a socket after which the acceptor looks whether a limit is still reached.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The accepting thread and everything it started.
#[derive(Debug)]
pub(crate) struct Acceptor {
    address: SocketAddr,
    sockets: Arc<Sockets>,
    readers: Arc<Readers<Connection>>,
    thread: JoinHandle<()>,
}

impl Acceptor {
    /// Starts to accept on the configured address (port 0: a free one), with places for so many clients.
    ///
    /// # Errors
    /// When the address cannot be used or the system gives no thread or file.
    pub(crate) fn start(
        config: &Config,
        connections_max: usize,
        router: Router,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let listener = bind(config.listen)?;
        let address = listener.local_addr()?;
        let sockets = Arc::new(Sockets::default());
        let readers = Readers::start(config.readers_max, metrics.clone())?;
        let router = Arc::new(router);
        let accepting = AcceptLoop {
            listener,
            sockets: sockets.clone(),
            readers: readers.clone(),
            peers: Peers::new(&config.client, connections_max, metrics.clone()),
            dead_peer_timeout: config.client.stall_timeout + DEAD_PEER_MARGIN,
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
    bound_unsent(&socket)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Has the kernel take no more than [`SOCKET_UNSENT_BYTES_MAX`] for a peer that does not read: by default it would
/// take up to 4 MiB (`net.ipv4.tcp_wmem`), beside which the budget of an outbox means little. Accepted sockets
/// inherit it. What is on its way to a fast and distant peer is not bounded by it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn bound_unsent(listener: &Socket) -> io::Result<()> {
    listener.set_tcp_notsent_lowat(SOCKET_UNSENT_BYTES_MAX)
}

/// Elsewhere the buffers of sockets are as large as the system makes them.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn bound_unsent(_: &Socket) -> io::Result<()> {
    Ok(())
}

struct AcceptLoop {
    listener: TcpListener,
    sockets: Arc<Sockets>,
    readers: Arc<Readers<Connection>>,
    peers: Arc<Peers>,
    dead_peer_timeout: Duration,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
}

impl AcceptLoop {
    fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            self.await_socket();
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

    /// Waits for a socket, and meanwhile tells when a limit is no longer reached.
    fn await_socket(&self) {
        loop {
            let now = Instant::now();
            let due = self.peers.check_logs(now);
            let patience = due.map_or(LOOK_INTERVAL, |due| due.saturating_duration_since(now));
            let patience = Timespec::try_from(patience.min(LOOK_INTERVAL)).ok();
            let mut listener = [PollFd::new(&self.listener, PollFlags::IN)];
            match poll(&mut listener, patience.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // Whatever is wrong with the listener, accepting tells.
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn serve(&self, socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let peer = match self.peers.accept(peer.ip(), Instant::now()) {
            Ok(peer) => peer,
            Err(refusal) => return refuse(&socket, refusal),
        };
        find_dead_peer(&socket, self.dead_peer_timeout);
        let permit = ConnectionPermit::new(&self.sockets, &self.metrics);
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

/// Tells a client that a limit is reached, without waiting for it; SDKs back off and try again.
fn refuse(socket: &TcpStream, refusal: Refusal) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match io::Write::write(&mut &*socket, &Response::refusal(refusal).encode(false, false)) {
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the 4 MiB that it would take otherwise; segments are larger than the bytes in them.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_takes_little_for_a_peer_that_does_not_read() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut taken = 0;
        while let Ok(count) = io::Write::write(&mut socket, &[0; 16 * 1024]) {
            taken += count;
        }
        assert!(taken >= 128 * 1024, "{taken}");
        assert!(taken <= 512 * 1024, "{taken}");
    }

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
