//! The one thread that waits for blocked sockets and finishes their outboxes.
//!
//! Owns the list of blocked outboxes. Only [`Outbox`] may add to it or remove from it, with its own
//! lock held; this thread takes an outbox's lock only after it let go of the list.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam_channel::Sender;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::Outbox;
use crate::ids::ConnectionId;
use crate::metrics::Metrics;

/// Token of the waker; connection ids start at 1.
const WAKE: Token = Token(0);

/// Writable sockets handled in one wake-up of the thread.
const EVENTS_MAX: usize = 1024;

/// What outboxes hold of the drainer.
#[derive(Clone)]
pub struct DrainerHandle(Arc<Shared>);

struct Shared {
    registry: Registry,
    waker: Waker,
    blocked: Mutex<AHashMap<ConnectionId, Arc<Outbox>>>,
    /// Bounded by the number of connections: each has at most one notice under way.
    drained: Sender<ConnectionId>,
    stopping: AtomicBool,
    metrics: Arc<Metrics>,
}

/// The running drainer; stopping it is its owner's duty.
#[derive(Debug)]
pub struct Drainer {
    handle: DrainerHandle,
    thread: JoinHandle<()>,
}

impl Drainer {
    /// Starts the thread. Connections whose outboxes have drained are named on `drained`, if they
    /// asked; sockets that take no byte for `stall_timeout` are ended.
    ///
    /// # Errors
    /// When the system has no poller or no thread left.
    pub fn start(
        stall_timeout: Duration,
        drained: Sender<ConnectionId>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let shared = Shared {
            registry: poll.registry().try_clone()?,
            waker: Waker::new(poll.registry(), WAKE)?,
            blocked: Mutex::new(AHashMap::new()),
            drained,
            stopping: AtomicBool::new(false),
            metrics,
        };
        let handle = DrainerHandle(Arc::new(shared));
        let worker = Worker { poll, handle: handle.clone(), stall_timeout };
        let thread = thread::Builder::new().name("drainer".into()).spawn(move || worker.run())?;
        Ok(Self { handle, thread })
    }

    /// What outboxes are made with.
    #[must_use]
    pub fn handle(&self) -> DrainerHandle {
        self.handle.clone()
    }

    /// Ends the thread; blocked outboxes stay as they are.
    pub fn stop(self) {
        self.handle.0.stopping.store(true, Ordering::Release);
        if let Err(error) = self.handle.0.waker.wake() {
            tracing::warn!(%error, "the drainer could not be woken to stop");
            return;
        }
        if self.thread.join().is_err() {
            tracing::error!("the drainer had panicked");
        }
    }
}

impl DrainerHandle {
    pub(super) fn metrics(&self) -> Arc<Metrics> {
        self.0.metrics.clone()
    }

    pub(super) fn notify(&self, id: ConnectionId) {
        // Nobody listens any more only while the whole server stops.
        let _ = self.0.drained.send(id);
    }

    /// Called with the outbox's lock held. The poller reports a socket that is writable already, so
    /// nothing is missed between the failed write and this.
    pub(super) fn watch(&self, outbox: &Arc<Outbox>, socket: &TcpStream) -> io::Result<()> {
        let first = {
            let mut blocked = self.blocked();
            blocked.insert(outbox.id(), outbox.clone());
            blocked.len() == 1
        };
        if first {
            // The thread sleeps without a timeout while nothing is blocked; stalls must be counted now.
            self.0.waker.wake()?;
        }
        let token = Token(outbox.id().0 as usize);
        let registered =
            self.0.registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::WRITABLE);
        match registered {
            Ok(()) => self.0.metrics.outboxes_blocked.inc(),
            Err(_) => drop(self.blocked().remove(&outbox.id())),
        }
        registered
    }

    /// Called with the outbox's lock held.
    pub(super) fn unwatch(&self, id: ConnectionId, socket: &TcpStream) {
        if self.blocked().remove(&id).is_some() {
            self.0.metrics.outboxes_blocked.dec();
        }
        if let Err(error) = self.0.registry.deregister(&mut SourceFd(&socket.as_raw_fd())) {
            tracing::debug!(%error, "a socket was not being watched");
        }
    }

    fn blocked(&self) -> MutexGuard<'_, AHashMap<ConnectionId, Arc<Outbox>>> {
        self.0.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DrainerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrainerHandle")
    }
}

struct Worker {
    poll: Poll,
    handle: DrainerHandle,
    stall_timeout: Duration,
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let scan_every = (self.stall_timeout / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut scanned_at = Instant::now();
        while !self.handle.0.stopping.load(Ordering::Acquire) {
            // Without blocked outboxes there is no stall to find: sleep until `watch` wakes us.
            let timeout = if self.handle.blocked().is_empty() { None } else { Some(scan_every) };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "waiting for writable sockets failed");
            }
            for event in &events {
                if event.token() != WAKE {
                    self.on_event(ConnectionId(event.token().0 as u64));
                }
            }
            if scanned_at.elapsed() >= scan_every {
                scanned_at = Instant::now();
                self.check_stalls(scanned_at);
            }
        }
    }

    fn on_event(&self, id: ConnectionId) {
        let outbox = self.handle.blocked().get(&id).cloned();
        if let Some(outbox) = outbox {
            outbox.on_writable();
        }
    }

    fn check_stalls(&self, now: Instant) {
        let blocked: Vec<_> = self.handle.blocked().values().cloned().collect();
        for outbox in blocked {
            outbox.check_stall(now, self.stall_timeout);
        }
    }
}
