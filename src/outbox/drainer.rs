//! The one thread that waits for blocked sockets and finishes their outboxes.
//!
//! Owns the list of blocked outboxes, which it knows only as [`Watched`]. Only an outbox may add itself
//! to the list or remove itself from it, with its own lock held; this thread takes an outbox's lock
//! only after it let go of the list.

use std::fmt;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam_channel::Sender;

use super::wire::{Poller, Registrar, Wire};
use crate::ids::ConnectionId;
use crate::metrics::Metrics;
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, lock};

/// A blocked outbox as the thread knows it.
pub(super) trait Watched: Send + Sync {
    /// Writes on: the socket is writable again.
    fn on_writable(self: Arc<Self>);

    /// Ends a connection whose socket took nothing since `stall_timeout` before `now`.
    fn check_stall(&self, now: Instant, stall_timeout: Duration);
}

type Blocked = AHashMap<ConnectionId, Arc<dyn Watched>>;

/// The drainer as outboxes hold it.
#[derive(Clone)]
pub struct DrainerHandle(Arc<Shared>);

struct Shared {
    registrar: Registrar,
    blocked: Mutex<Blocked>,
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
        let worker = Worker::new(stall_timeout, drained, metrics)?;
        let handle = worker.handle.clone();
        let thread = thread::Builder::new().name("drainer".into()).spawn(move || worker.run())?;
        Ok(Self { handle, thread })
    }

    /// The handle that outboxes are made with.
    #[must_use]
    pub fn handle(&self) -> DrainerHandle {
        self.handle.clone()
    }

    /// Ends the thread; blocked outboxes stay as they are.
    pub fn stop(self) {
        if let Err(error) = self.handle.ask_to_stop() {
            tracing::warn!(%error, "the drainer could not be woken to stop");
            return;
        }
        if self.thread.join().is_err() {
            tracing::error!("the drainer had panicked");
        }
    }
}

impl DrainerHandle {
    /// For outboxes without sockets, which only send notices.
    #[cfg(all(test, feature = "model"))]
    pub(crate) fn without_thread(drained: Sender<ConnectionId>, metrics: Arc<Metrics>) -> io::Result<Self> {
        Worker::new(Duration::MAX, drained, metrics).map(|worker| worker.handle)
    }

    pub(super) fn ask_to_stop(&self) -> io::Result<()> {
        self.0.stopping.store(true, Ordering::Release);
        self.0.registrar.wake()
    }

    pub(super) fn metrics(&self) -> Arc<Metrics> {
        self.0.metrics.clone()
    }

    pub(super) fn notify(&self, id: ConnectionId) {
        // Nobody listens any more only while the whole server stops.
        let _ = self.0.drained.send(id);
    }

    /// Called with the outbox's lock held. The poller reports a socket that is writable already, so
    /// nothing is missed between the failed write and this.
    pub(super) fn watch(&self, id: ConnectionId, outbox: Arc<dyn Watched>, wire: &Wire) -> io::Result<()> {
        let first = {
            let mut blocked = self.blocked();
            let listed = blocked.insert(id, outbox);
            debug_assert!(listed.is_none(), "{id:?} is listed twice");
            blocked.len() == 1
        };
        if first {
            // The thread sleeps without a timeout while nothing is blocked; stalls must be counted now.
            self.0.registrar.wake()?;
        }
        let registered = self.0.registrar.register(id, wire);
        match registered {
            Ok(()) => self.0.metrics.outboxes_blocked.inc(),
            Err(_) => drop(self.blocked().remove(&id)),
        }
        registered
    }

    /// Called with the outbox's lock held.
    pub(super) fn unwatch(&self, id: ConnectionId, wire: &Wire) {
        let listed = self.blocked().remove(&id).is_some();
        debug_assert!(listed, "{id:?} is watched and not listed");
        if listed {
            self.0.metrics.outboxes_blocked.dec();
        }
        if let Err(error) = self.0.registrar.deregister(wire) {
            tracing::debug!(%error, "a socket was not being watched");
        }
    }

    fn on_writable(&self, id: ConnectionId) {
        let outbox = self.blocked().get(&id).cloned();
        if let Some(outbox) = outbox {
            outbox.on_writable();
        }
    }

    /// Ends what is blocked and took no byte since `stall_timeout` before `now`.
    pub(super) fn check_stalls(&self, now: Instant, stall_timeout: Duration) {
        let blocked: Vec<_> = self.blocked().values().cloned().collect();
        for outbox in blocked {
            outbox.check_stall(now, stall_timeout);
        }
    }

    pub(super) fn blocked(&self) -> MutexGuard<'_, Blocked> {
        lock(&self.0.blocked)
    }
}

impl fmt::Debug for DrainerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrainerHandle")
    }
}

/// The loop of the thread and what it owns.
pub(super) struct Worker {
    poller: Poller,
    pub(super) handle: DrainerHandle,
    stall_timeout: Duration,
}

impl Worker {
    pub(super) fn new(
        stall_timeout: Duration,
        drained: Sender<ConnectionId>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let (poller, registrar) = Poller::new()?;
        let (blocked, stopping) = (Mutex::new(AHashMap::new()), AtomicBool::new(false));
        let handle = DrainerHandle(Arc::new(Shared { registrar, blocked, drained, stopping, metrics }));
        Ok(Self { poller, handle, stall_timeout })
    }

    pub(super) fn run(mut self) {
        let scan_every = (self.stall_timeout / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut scanned_at = Instant::now();
        while !self.handle.0.stopping.load(Ordering::Acquire) {
            // Without blocked outboxes there is no stall to find: sleep until `watch` wakes us.
            let timeout = if self.handle.blocked().is_empty() { None } else { Some(scan_every) };
            for id in self.poller.wait(timeout) {
                self.handle.on_writable(id);
            }
            if scanned_at.elapsed() >= scan_every {
                scanned_at = Instant::now();
                self.handle.check_stalls(scanned_at, self.stall_timeout);
            }
        }
    }
}
