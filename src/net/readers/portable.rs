//! The poller of systems without epoll: one thread waits for all sockets and hands over what they tell.
//!
//! Same contract as `poller`, but two wake-ups an event instead of one. Tested on Linux as well.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::unix::SourceFd;
use mio::{Events, Poll, Registry, Token, Waker};

use super::wait::{Interest, Told};
use crate::ids::ConnectionId;

/// Token of the waker; connection ids begin at 1.
const WAKE: Token = Token(0);

/// Events the thread takes at a time.
const EVENTS_MAX: usize = 1024;

/// The sockets that are waited for, and a bell for a queue of other work.
#[derive(Debug)]
pub(super) struct Poller {
    registry: Registry,
    told: Receiver<Told>,
    /// Emptied as fast as it fills: an event of a socket that is being served only marks its seat.
    tell: Sender<Told>,
    waker: Waker,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Poller {
    /// # Errors
    /// When the system has no file or thread left.
    pub(super) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let (registry, waker) = (poll.registry().try_clone()?, Waker::new(poll.registry(), WAKE)?);
        let (tell, told) = unbounded();
        let stopping = Arc::new(AtomicBool::new(false));
        let hand_over = HandOver { poll, tell: tell.clone(), stopping: stopping.clone() };
        let thread = thread::Builder::new().name("poller".into()).spawn(move || hand_over.run())?;
        Ok(Self { registry, told, tell, waker, stopping, thread: Some(thread) })
    }

    /// Makes a socket known and arms it. It is forgotten when its file is closed.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(super) fn add(&self, id: ConnectionId, socket: &TcpStream, interest: Interest) -> io::Result<()> {
        debug_assert!(id.0 != 0, "the token of the waker");
        self.registry.register(&mut SourceFd(&socket.as_raw_fd()), token(id), interests(interest))
    }

    /// Has one more event of a known socket told: registering anew tells what is there already.
    pub(super) fn arm(&self, id: ConnectionId, socket: &TcpStream, interest: Interest) {
        let armed =
            self.registry.reregister(&mut SourceFd(&socket.as_raw_fd()), token(id), interests(interest));
        if let Err(error) = armed {
            tracing::error!(%error, "a socket is not waited for any more");
        }
    }

    /// Makes one thread see to the queue.
    pub(super) fn ring(&self) {
        let _ = self.tell.send(Told::Queue); // Both ends live in this struct.
    }

    /// The next event; `None` when there was none for so long.
    pub(super) fn wait(&self, patience: Duration) -> Option<Told> {
        self.told.recv_timeout(patience).ok()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the poller had panicked");
        }
    }
}

/// The loop of the thread.
struct HandOver {
    poll: Poll,
    tell: Sender<Told>,
    stopping: Arc<AtomicBool>,
}

impl HandOver {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.stopping.load(Ordering::Acquire) {
            if let Err(error) = self.poll.poll(&mut events, None)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "waiting for sockets failed");
            }
            for event in events.iter().filter(|event| event.token() != WAKE) {
                let _ = self.tell.send(Told::Socket(ConnectionId(event.token().0 as u64)));
            }
        }
    }
}

fn token(id: ConnectionId) -> Token {
    Token(id.0 as usize)
}

fn interests(interest: Interest) -> mio::Interest {
    match interest {
        Interest::Read => mio::Interest::READABLE,
        Interest::Write => mio::Interest::WRITABLE,
    }
}
