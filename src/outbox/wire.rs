//! What outboxes and the drainer ask of the system: bytes into a socket without waiting, and word
//! when a full socket takes bytes again.
//!
//! The model checker has a wire in memory with the same contract in `model/wire.rs`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use socket2::SockRef;

use crate::ids::ConnectionId;

/// Unsent bytes the kernel may hold for one socket before it says "would block": small, so that the
/// byte budget of a listener is the real one, yet several full frames of a chat.
const KERNEL_UNSENT_BYTES: u32 = 32 * 1024;

/// Most queued buffers handed to the kernel in one call.
const WRITE_BUFFERS_MAX: usize = 16;

/// Token of the waker; connection ids start at 1.
const WAKE: Token = Token(0);

/// Writable sockets handled in one wake-up of the drainer.
const EVENTS_MAX: usize = 1024;

/// Flags of every write: never wait, never raise SIGPIPE.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// Elsewhere the standard library already turned SIGPIPE off for the socket.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT;

/// The writing half of a socket.
pub(super) struct Wire {
    /// Spares every send the way to the socket's own place in memory.
    fd: RawFd,
    socket: Arc<TcpStream>,
}

impl Wire {
    /// Fails when the socket's options cannot be set, that is when it is already dead.
    pub(super) fn new(socket: Arc<TcpStream>) -> io::Result<Self> {
        let options = SockRef::from(&*socket);
        options.set_tcp_nodelay(true)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        options.set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES)?;
        Ok(Self { fd: socket.as_raw_fd(), socket })
    }

    #[allow(
        unsafe_code,
        reason = "the standard library has no borrowed descriptor without its owner at hand"
    )]
    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `fd` is the descriptor of `self.socket`, set once in `new`, and `self.socket` keeps it
        // open for as long as `self` lives, which the lifetime of the result cannot exceed.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// The socket, for its reader.
    pub(super) fn socket(&self) -> Option<&TcpStream> {
        Some(&self.socket)
    }

    /// Sends what the kernel takes now, at least one byte.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        retry_interrupted(|| Ok(rustix::net::send(self.fd(), bytes, SEND_FLAGS)?))
    }

    /// Like [`send`](Self::send), from a queue whose front buffer has `front_sent` bytes that are sent.
    pub(super) fn send_queue(&self, queue: &VecDeque<Bytes>, front_sent: usize) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); WRITE_BUFFERS_MAX];
        let mut count = 0;
        for (slice, buffer) in slices.iter_mut().zip(queue) {
            let skip = if count == 0 { front_sent } else { 0 };
            *slice = IoSlice::new(&buffer[skip..]);
            count += 1;
        }
        retry_interrupted(|| {
            let mut no_ancillary = SendAncillaryBuffer::default();
            Ok(rustix::net::sendmsg(self.fd(), &slices[..count], &mut no_ancillary, SEND_FLAGS)?)
        })
    }

    pub(super) fn shutdown(&self, how: Shutdown) {
        // An error only says that the peer was faster.
        let _ = self.socket.shutdown(how);
    }
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            other => return other,
        }
    }
}

/// The list of full wires, and the way to wake the thread at the [`Poller`].
pub(super) struct Registrar {
    registry: Registry,
    waker: Waker,
}

impl Registrar {
    /// From now on the poller names `id` once whenever the wire was full and takes bytes again. A wire
    /// that takes bytes already is named at once, so nothing is missed between a failed write and this.
    pub(super) fn register(&self, id: ConnectionId, wire: &Wire) -> io::Result<()> {
        let token = Token(id.0 as usize);
        self.registry.register(&mut SourceFd(&wire.fd), token, Interest::WRITABLE)
    }

    pub(super) fn deregister(&self, wire: &Wire) -> io::Result<()> {
        self.registry.deregister(&mut SourceFd(&wire.fd))
    }

    /// Ends the wait of the poller, or its next one.
    pub(super) fn wake(&self) -> io::Result<()> {
        self.waker.wake()
    }
}

/// Waits for registered wires.
pub(super) struct Poller {
    poll: Poll,
    events: Events,
}

impl Poller {
    pub(super) fn new() -> io::Result<(Self, Registrar)> {
        let poll = Poll::new()?;
        let registrar =
            Registrar { registry: poll.registry().try_clone()?, waker: Waker::new(poll.registry(), WAKE)? };
        Ok((Self { poll, events: Events::with_capacity(EVENTS_MAX) }, registrar))
    }

    /// Waits until there is something to tell or the time is over, and names the writable ones.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> impl Iterator<Item = ConnectionId> {
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "waiting for writable sockets failed");
        }
        let tokens = self.events.iter().map(mio::event::Event::token).filter(|token| *token != WAKE);
        tokens.map(|token| ConnectionId(token.0 as u64))
    }
}
