//! The count of sockets being served, their permits, and the phase of the server they all follow.
//!
//! Reads and accepts nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use crate::ids::ConnectionId;
use crate::metrics::Metrics;
use crate::sync::{Condvar, Mutex, lock, wait_timeout};

/// The number of open sockets, and whether they are to end.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    count: AtomicUsize,
    /// For the shutdown, which waits until the count is 0.
    none_left: (Mutex<()>, Condvar),
    phase: AtomicU8,
}

/// The life of the server, as each connection sees it when it has a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Connections come and go.
    Serving,
    /// Each is to finish what it is at, and to say goodbye.
    Stopping,
    /// Each is to end at once.
    CutOff,
}

impl Sockets {
    /// Number of sockets being served.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Stopping,
            _ => Phase::CutOff,
        }
    }

    /// Goes on to the next phase. Connections see it in their next turn; whoever calls gives them one.
    pub(super) fn enter(&self, phase: Phase) {
        let before = self.phase.swap(phase as u8, Ordering::AcqRel);
        debug_assert!(before < phase as u8, "a server stops once");
    }

    /// Waits until no socket is left or the time is over.
    pub(super) fn wait_until(&self, deadline: Instant) {
        let mut waiting = lock(&self.none_left.0);
        while self.count() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = wait_timeout(&self.none_left.1, waiting, left);
        }
    }

    fn leave(&self) {
        let before = self.count.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a permit is returned once");
        if before == 1 {
            // Under the lock, so that a shutdown that just saw a count above 0 is waiting already.
            let _waiting = lock(&self.none_left.0);
            self.none_left.1.notify_all();
        }
    }
}

/// The right of a connection to be served; returned however it ends.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    id: ConnectionId,
    sockets: Arc<Sockets>,
    metrics: Arc<Metrics>,
}

impl ConnectionPermit {
    /// Counts a socket as open until the permit is dropped.
    pub(super) fn new(sockets: &Arc<Sockets>, metrics: &Arc<Metrics>) -> Self {
        sockets.count.fetch_add(1, Ordering::AcqRel);
        metrics.sockets.inc();
        Self { id: ConnectionId::next(), sockets: sockets.clone(), metrics: metrics.clone() }
    }

    /// The id of the connection, which no other has or had.
    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    /// The phase the connection has to follow.
    pub(super) fn phase(&self) -> Phase {
        self.sockets.phase()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.metrics.sockets.dec();
        self.sockets.leave();
    }
}
