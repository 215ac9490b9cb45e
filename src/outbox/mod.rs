//! The outbox of one connection: the only thing that ever writes to its socket.
//!
//! Workers and the connection's own reader meet here. A frame goes straight to the kernel when
//! nothing waits before it; what the kernel does not take is queued, bounded by the connection's
//! byte budget, and finished by the [`Drainer`]. An outbox knows sockets and bytes; it knows no
//! room, no protocol and no engine. Locks: the outbox's own, and below it the drainer's list.

mod drainer;
pub mod frame;
#[cfg(all(test, feature = "model"))]
mod model;
#[cfg(not(all(test, feature = "model")))]
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::ids::ConnectionId;
use crate::metrics::Metrics;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, lock, wait};
#[cfg(all(test, feature = "model"))]
use model::wire;
use wire::Wire;

pub use drainer::{Drainer, DrainerHandle};

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Push {
    /// It is with the kernel or queued; it will be written in order.
    Accepted,
    /// The byte budget is used up; the frame was not taken.
    Full,
    /// The connection is ending; the frame was not taken.
    Closed,
}

/// Why an outbox takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// [`Outbox::close`] was called with this code.
    Closed(u16),
    /// The socket took no byte for the stall timeout.
    Stalled,
    /// The socket failed, or the peer or the reader ended it.
    Broken,
}

/// Where bytes leave to.
enum Peer {
    Socket(Wire),
    /// A consumer in this process takes the frames with [`Outbox::take`].
    Local,
}

/// See the module.
///
/// A fan-out touches thousands of these, each for the first time in a while, so what an unhindered
/// push reads stands at the front, in one line of the cache.
#[repr(C, align(64))]
pub struct Outbox {
    peer: Peer,
    state: Mutex<State>,
    id: ConnectionId,
    budget_bytes: usize,
    metrics: Arc<Metrics>,
    drainer: DrainerHandle,
    /// Signalled when bytes left the queue, when a local frame arrived, and at the end.
    changed: Condvar,
}

#[repr(C)]
struct State {
    /// Of all buffers in the queue; none of them is empty.
    queued_bytes: usize,
    ended: Option<Ended>,
    /// Frames wait for [`Outbox::uncork`].
    corked: bool,
    /// The drainer watches the socket.
    watched: bool,
    /// Somebody wants to hear when the queue has drained.
    notice_wanted: bool,
    /// Somebody sleeps on `changed`.
    waiters: bool,
    queue: VecDeque<Bytes>,
    /// Bytes of the front buffer the kernel already took.
    front_sent: usize,
    /// When the socket last took a byte; only kept while `watched`.
    progress_at: Option<Instant>,
    /// When the socket last took all that had waited for it.
    drained_at: Option<Instant>,
}

impl Outbox {
    /// An outbox that writes to `socket`, holding back everything until [`uncork`](Self::uncork).
    ///
    /// # Errors
    /// When the socket's options cannot be set, that is when it is already dead.
    pub fn for_socket(
        id: ConnectionId,
        socket: Arc<TcpStream>,
        budget_bytes: usize,
        drainer: DrainerHandle,
    ) -> io::Result<Arc<Self>> {
        Ok(Self::new(id, Peer::Socket(Wire::new(socket)?), budget_bytes, drainer, true))
    }

    /// An outbox whose frames a consumer in this process takes with [`take`](Self::take).
    #[must_use]
    pub fn for_consumer(id: ConnectionId, budget_bytes: usize, drainer: DrainerHandle) -> Arc<Self> {
        Self::new(id, Peer::Local, budget_bytes, drainer, false)
    }

    fn new(
        id: ConnectionId,
        peer: Peer,
        budget_bytes: usize,
        drainer: DrainerHandle,
        corked: bool,
    ) -> Arc<Self> {
        let state = State {
            queue: VecDeque::new(),
            front_sent: 0,
            queued_bytes: 0,
            corked,
            watched: false,
            notice_wanted: false,
            waiters: false,
            ended: None,
            progress_at: None,
            drained_at: None,
        };
        let metrics = drainer.metrics();
        Arc::new(Self {
            id,
            peer,
            budget_bytes,
            metrics,
            drainer,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// The connection this outbox belongs to.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The socket, for its reader. `None` for a consumer in this process.
    pub fn socket(&self) -> Option<&TcpStream> {
        match &self.peer {
            Peer::Socket(wire) => wire.socket(),
            Peer::Local => None,
        }
    }

    /// Takes a frame of a room if the budget allows it. Never blocks. An empty queue takes one frame
    /// of any size, so that no message is too large for a small budget.
    pub fn push(self: &Arc<Self>, frame: &Bytes) -> Push {
        let mut state = self.lock();
        if state.ended.is_some() {
            return Push::Closed;
        }
        if state.queued_bytes > 0 && state.queued_bytes + frame.len() > self.budget_bytes {
            return Push::Full;
        }
        self.accept(&mut state, frame)
    }

    /// Takes a reply or a ping whatever the budget says. Never blocks; who can cause many replies
    /// calls [`wait_for_capacity`](Self::wait_for_capacity) between them.
    pub fn reply(self: &Arc<Self>, frame: &Bytes) -> Push {
        let mut state = self.lock();
        if state.ended.is_some() {
            return Push::Closed;
        }
        self.accept(&mut state, frame)
    }

    /// Writes `first` before everything that was held back, then that, then goes on as usual.
    pub fn uncork(self: &Arc<Self>, first: &Bytes) -> Push {
        let mut state = self.lock();
        if state.ended.is_some() {
            return Push::Closed;
        }
        state.corked = false;
        state.queue.push_front(first.clone());
        self.count_queued(&mut state, first.len());
        self.write_queue(&mut state);
        Push::Accepted
    }

    /// True while a room frame of moderate size would be taken: at most half the budget is used.
    pub fn has_capacity(&self) -> bool {
        let state = self.lock();
        state.ended.is_none() && state.queued_bytes <= self.budget_bytes / 2
    }

    /// Blocks the caller, who must be the connection's own reader, while more than the budget is
    /// queued. False when the connection ended meanwhile.
    pub fn wait_for_capacity(&self) -> bool {
        let mut state = self.lock();
        while state.ended.is_none() && state.queued_bytes > self.budget_bytes {
            state.waiters = true;
            state = wait(&self.changed, state);
        }
        state.ended.is_none()
    }

    /// Asks for one notice on the drainer's channel when nothing is queued any more, so that the next
    /// frame is taken whatever its size, or the connection ended meanwhile. False when that is so
    /// already: then no notice comes.
    pub fn request_notice(&self) -> bool {
        let mut state = self.lock();
        if state.ended.is_some() || state.queued_bytes == 0 {
            return false;
        }
        state.notice_wanted = true;
        true
    }

    /// Queues a close frame behind what waits; nothing is taken any more. The socket is shut for
    /// writing once all is written. The first close wins.
    pub fn close(self: &Arc<Self>, code: u16, reason: &str) {
        self.finish_with(code, &frame::close(code, reason));
    }

    /// Like [`close`](Self::close), with the frame that answers the peer's own close.
    pub fn finish_with(self: &Arc<Self>, code: u16, last: &Bytes) {
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        if let Peer::Socket(_) = self.peer {
            state.corked = false;
            let _ = self.accept(&mut state, last);
            self.write_queue(&mut state);
        }
        let flushed = state.queue.is_empty();
        if state.ended.replace(Ended::Closed(code)).is_none() && flushed {
            self.shut(Shutdown::Write);
        }
        self.wake(&mut state);
    }

    /// Ends the connection at once; queued bytes are dropped.
    pub fn abort(&self) {
        let mut state = self.lock();
        self.end(&mut state, Ended::Broken);
    }

    /// Why nothing is taken any more; `None` while open.
    pub fn ended(&self) -> Option<Ended> {
        self.lock().ended
    }

    /// Blocks until everything queued is written, the connection breaks, or `deadline` passes.
    pub fn wait_flushed(&self, deadline: Instant) {
        let mut state = self.lock();
        while !state.queue.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state.waiters = true;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Bytes that wait for the socket or the consumer.
    pub fn queued_bytes(&self) -> usize {
        self.lock().queued_bytes
    }

    /// True while frames wait for the socket, and for a `span` after the last of them was taken: what
    /// the kernel took may still be on its slow way.
    pub fn was_blocked_within(&self, span: Duration) -> bool {
        let state = self.lock();
        state.queued_bytes > 0 || state.drained_at.is_some_and(|at| at.elapsed() < span)
    }

    /// For the consumer of a local outbox: the next frames, waiting for them until `deadline`
    /// (`None`: for ever). `None` when the time is over or the outbox ended and is empty.
    pub fn take(&self, deadline: Option<Instant>) -> Option<Bytes> {
        let mut state = self.lock();
        loop {
            if let Some(frame) = state.queue.pop_front() {
                self.count_written(&mut state, frame.len());
                self.notify_if_drained(&mut state);
                return Some(frame);
            }
            if state.ended.is_some() {
                return None;
            }
            state.waiters = true;
            state = match deadline {
                None => wait(&self.changed, state),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic can only happen between two complete states, so a poisoned lock is as good.
        lock(&self.state)
    }

    /// Sends what can be sent at once and queues the rest.
    fn accept(self: &Arc<Self>, state: &mut State, frame: &Bytes) -> Push {
        let mut sent = 0;
        if state.queued_bytes == 0
            && !state.corked
            && let Peer::Socket(wire) = &self.peer
        {
            match wire.send(frame) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.end(state, Ended::Broken);
                    return Push::Closed;
                }
            }
            if sent == frame.len() {
                return Push::Accepted;
            }
        }
        let rest = frame.slice(sent..);
        self.count_queued(state, rest.len());
        state.queue.push_back(rest);
        match self.peer {
            Peer::Socket(_) if !state.corked => self.watch(state),
            Peer::Socket(_) => {}
            Peer::Local => self.wake(state),
        }
        Push::Accepted
    }

    /// Called by the drainer when the socket is writable again.
    fn on_writable(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.watched {
            self.write_queue(&mut state);
        }
    }

    /// Called by the drainer now and then: ends a connection whose socket takes nothing.
    fn check_stall(&self, now: Instant, stall_timeout: Duration) {
        let mut state = self.lock();
        if state.watched
            && state.progress_at.is_some_and(|at| now.saturating_duration_since(at) >= stall_timeout)
        {
            self.metrics.stalled_total.inc();
            self.end(&mut state, Ended::Stalled);
        }
    }

    /// Writes queued buffers until none is left or the kernel takes no more.
    fn write_queue(self: &Arc<Self>, state: &mut State) {
        let Peer::Socket(wire) = &self.peer else { return };
        while !state.queue.is_empty() {
            match wire.send_queue(&state.queue, state.front_sent) {
                Ok(count) => self.consume(state, count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.watch(state);
                    return;
                }
                Err(_) => {
                    self.end(state, Ended::Broken);
                    return;
                }
            }
        }
        self.unwatch(state);
        self.notify_if_drained(state);
        if matches!(state.ended, Some(Ended::Closed(_))) {
            self.shut(Shutdown::Write);
        }
    }

    /// Removes `count` written bytes from the front of the queue.
    fn consume(&self, state: &mut State, mut count: usize) {
        self.count_written(state, count);
        if state.watched {
            state.progress_at = Some(Instant::now());
        }
        while let Some(front) = state.queue.front() {
            let left = front.len() - state.front_sent;
            if count < left {
                state.front_sent += count;
                break;
            }
            count -= left;
            state.front_sent = 0;
            state.queue.pop_front();
        }
        if state.waiters {
            self.wake(state);
        }
    }

    fn count_queued(&self, state: &mut State, bytes: usize) {
        state.queued_bytes += bytes;
        self.metrics.outbox_bytes.add(bytes as i64);
    }

    fn count_written(&self, state: &mut State, bytes: usize) {
        state.queued_bytes -= bytes;
        self.metrics.outbox_bytes.sub(bytes as i64);
    }

    fn notify_if_drained(&self, state: &mut State) {
        if state.notice_wanted && state.queued_bytes == 0 {
            state.notice_wanted = false;
            self.drainer.notify(self.id);
        }
    }

    fn watch(self: &Arc<Self>, state: &mut State) {
        if state.watched {
            return;
        }
        if let Peer::Socket(wire) = &self.peer {
            if self.drainer.watch(self, wire).is_err() {
                self.end(state, Ended::Broken);
                return;
            }
            state.watched = true;
            state.progress_at = Some(Instant::now());
        }
    }

    fn unwatch(&self, state: &mut State) {
        if state.watched
            && let Peer::Socket(wire) = &self.peer
        {
            state.watched = false;
            state.progress_at = None;
            state.drained_at = Some(Instant::now());
            self.drainer.unwatch(self.id, wire);
        }
    }

    fn end(&self, state: &mut State, why: Ended) {
        state.ended.get_or_insert(why);
        let bytes = state.queued_bytes;
        self.count_written(state, bytes);
        state.queue = VecDeque::new();
        state.front_sent = 0;
        self.unwatch(state);
        // Who asked must hear of the end too, or it would keep for ever what it wants to push.
        self.notify_if_drained(state);
        self.shut(Shutdown::Both);
        self.wake(state);
    }

    fn shut(&self, how: Shutdown) {
        if let Peer::Socket(wire) = &self.peer {
            wire.shutdown(how);
        }
    }

    fn wake(&self, state: &mut State) {
        if state.waiters {
            state.waiters = false;
            self.changed.notify_all();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let bytes = self.queued_bytes();
        self.metrics.outbox_bytes.sub(bytes as i64);
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests;
