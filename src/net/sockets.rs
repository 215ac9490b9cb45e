//! The sockets being served, so that a shutdown reaches them all, and the permits that count them.
//!
//! Reads and accepts nothing.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use ahash::AHashMap;

use crate::ids::ConnectionId;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::protocol::code::{Close, CloseCode};
use crate::sync::{Condvar, Mutex, ShardedMutex, lock, wait_timeout};

/// The open sockets, by connection.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: ShardedMutex<AHashMap<ConnectionId, Open>>,
    count: AtomicUsize,
    /// For the shutdown, which waits until the count is 0.
    none_left: (Mutex<()>, Condvar),
    stopping: AtomicBool,
}

/// An open socket, by the means to end it.
#[derive(Debug, Clone)]
enum Open {
    /// It speaks HTTP, or nothing yet.
    Http(Arc<TcpStream>),
    WebSocket(Arc<Outbox>),
}

impl Sockets {
    /// Number of sockets being served.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn begin_stop(&self) {
        let before = self.stopping.swap(true, Ordering::AcqRel);
        debug_assert!(!before, "a server stops once");
    }

    fn insert(&self, id: ConnectionId, socket: &Arc<TcpStream>) {
        self.count.fetch_add(1, Ordering::AcqRel);
        let before = self.open.of(id.0).insert(id, Open::Http(socket.clone()));
        debug_assert!(before.is_none(), "a connection id is used once");
    }

    fn remove(&self, id: ConnectionId) {
        let removed = self.open.of(id.0).remove(&id);
        debug_assert!(removed.is_some(), "a permit stands for one open socket");
        let before = self.count.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a permit is returned once");
        if before == 1 {
            // Under the lock, so that a shutdown that just saw a count above 0 is waiting already.
            let _waiting = lock(&self.none_left.0);
            self.none_left.1.notify_all();
        }
    }

    pub(super) fn wait_until(&self, deadline: Instant) {
        let mut waiting = lock(&self.none_left.0);
        while self.count.load(Ordering::Acquire) > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = wait_timeout(&self.none_left.1, waiting, left);
        }
    }

    /// Closes WebSockets with `goodbye`; lets HTTP finish the request under way.
    pub(super) fn end_all(&self, goodbye: &Close) {
        debug_assert!(self.is_stopping(), "sockets that come while these end would be missed");
        let gather = |open: &mut AHashMap<ConnectionId, Open>| open.values().cloned().collect::<Vec<_>>();
        for open in self.open.each(gather).flatten() {
            match open {
                Open::WebSocket(outbox) => outbox.close(goodbye.code(), goodbye.reason()),
                Open::Http(socket) => drop(socket.shutdown(Shutdown::Read)),
            }
        }
    }

    pub(super) fn cut_off(&self) {
        debug_assert!(self.is_stopping(), "sockets are cut off after they were told to end");
        let gather = |open: &mut AHashMap<ConnectionId, Open>| open.values().cloned().collect::<Vec<_>>();
        for open in self.open.each(gather).flatten() {
            match open {
                Open::WebSocket(outbox) => outbox.abort(),
                Open::Http(socket) => drop(socket.shutdown(Shutdown::Both)),
            }
        }
    }
}

/// The right of a connection to be served; returned however its thread ends.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    id: ConnectionId,
    sockets: Arc<Sockets>,
    metrics: Arc<Metrics>,
}

impl ConnectionPermit {
    /// Counts the socket as open until the permit is dropped.
    pub(super) fn new(
        sockets: &Arc<Sockets>,
        id: ConnectionId,
        socket: &Arc<TcpStream>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        sockets.insert(id, socket);
        metrics.sockets.inc();
        Self { id, sockets: sockets.clone(), metrics: metrics.clone() }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    /// The socket has become a WebSocket: from now on its outbox ends it.
    pub(super) fn upgraded(&self, outbox: &Arc<Outbox>) {
        let before = self.sockets.open.of(self.id.0).insert(self.id, Open::WebSocket(outbox.clone()));
        debug_assert!(matches!(before, Some(Open::Http(_))), "a socket is upgraded once, while it is open");
        if self.sockets.stopping.load(Ordering::Acquire) {
            let goodbye = Close::from(CloseCode::Shutdown);
            outbox.close(goodbye.code(), goodbye.reason());
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.metrics.sockets.dec();
        self.sockets.remove(self.id);
    }
}
