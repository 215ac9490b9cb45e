//! The outbox of one connection: the only thing that ever writes to its socket, or what a listener in
//! this process takes its publications from.
//!
//! Workers and the connection's own reader meet here. A frame goes straight to the kernel when
//! nothing waits before it; what the kernel does not take is queued, bounded by the connection's
//! budget of memory, and finished by the [`Drainer`]. A consumer in this process has the same budget and
//! gets publications instead of frames. An outbox knows sockets, bytes, in which format its frames are, and what a
//! publication is; it knows no room, no command and no engine. Locks: the outbox's own, and below it the drainer's list.

#[cfg(test)]
mod bell;
mod drainer;
pub(crate) mod frame;
#[cfg(all(test, feature = "model"))]
pub(crate) mod model;
mod packet;
mod queue;
mod state;
#[cfg(not(all(test, feature = "model")))]
mod wire;

use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::ids::ConnectionId;
use crate::metrics::Metrics;
use crate::protocol::format::Format;
use crate::publication::Publication;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, lock, wait, wait_timeout};
use drainer::Watched;
#[cfg(all(test, feature = "model"))]
use model::wire;
use queue::{Queue, memory_bytes};
use state::State;
use wire::Wire;

pub use drainer::Drainer;
pub(crate) use drainer::DrainerHandle;
pub use packet::Packet;
pub(crate) use state::Ended;

/// Outcome of giving an outbox something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Push {
    /// It is with the kernel or queued; it leaves in order.
    Accepted,
    /// The byte budget is used up; nothing was taken.
    Full,
    /// The connection is ending; nothing was taken.
    Closed,
}

/// Something that a thread is to do which may wait.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// Whoever serves the connection of a socket's outbox, and sleeps while there is nothing to do for it.
pub trait Reader: Send + Sync {
    /// Has one of its threads do this soon.
    fn run(&self, work: Work);

    /// Has the connection looked at soon, however often it is called before that. Called with the lock of its
    /// outbox held: to be quick, and to ask nothing of the outbox.
    fn wake(&self, id: ConnectionId);
}

/// The far end of an outbox.
enum Peer {
    Socket(Wire),
    /// A consumer in this process takes publications with [`Outbox::take`], and no frame.
    Consumer,
}

/// Frames or publications on their way to one listener, in order and within its byte budget.
///
/// A fan-out touches thousands of these, each for the first time in a while, so what an unhindered
/// push reads stands at the front, in one line of the cache.
#[repr(C, align(64))]
pub struct Outbox {
    peer: Peer,
    format: Format,
    inner: Mutex<Inner>,
    id: ConnectionId,
    budget_bytes: usize,
    metrics: Arc<Metrics>,
    drainer: DrainerHandle,
    /// Woken when the outbox ends, and when it asked for it.
    reader: Option<Arc<dyn Reader>>,
    /// Signalled when a consumer's publications arrived, and at the end.
    changed: Condvar,
}

#[repr(C)]
struct Inner {
    state: State,
    /// What is queued waits for nothing but company: it leaves with the next frame, or when it is released.
    held: bool,
    queue: Queue,
    watch: Watch,
    /// The connection is to be named to the drainer's channel when the queue has drained.
    notice_wanted: bool,
    /// Threads sleep on `changed`.
    waiters: bool,
    /// The reader is to be woken when no more bytes than this are queued.
    wake_at_bytes: Option<usize>,
}

/// The drainer's watch over the socket.
enum Watch {
    /// There is none: the socket last took all that had waited for it at `drained_at`, if ever.
    Off { drained_at: Option<Instant> },
    /// The socket last took a byte, or was first found full, at `progress_at`.
    On { progress_at: Instant },
}

impl Inner {
    /// The invariants that hold whenever the lock is free.
    fn is_sound(&self, peer: &Peer) -> bool {
        let queued = !self.queue.is_empty();
        let watched = matches!(self.watch, Watch::On { .. });
        let is_socket = matches!(peer, Peer::Socket(_));
        self.queue.is_sound()
            // Queued bytes that may leave have somebody who sends them on; others have not.
            && watched == (is_socket && queued && self.state.writes() && !self.held)
            && (!self.held || (queued && self.state == State::Open))
            && (!queued || !matches!(self.state, State::Ended(_)))
            && (queued || !matches!(self.state, State::Closing(_)))
            // A promised notice is sent at the latest when the queue is empty, and so is a wake-up.
            && (queued || !self.notice_wanted)
            && self.wake_at_bytes.is_none_or(|bytes| self.queue.bytes() > bytes)
    }
}

impl Outbox {
    /// An outbox that writes frames of this format to `socket`, holding back everything until
    /// [`uncork`](Self::uncork). `reader` serves the connection.
    ///
    /// # Errors
    /// When the socket's options cannot be set, that is when it is already dead.
    pub fn for_socket(
        id: ConnectionId,
        format: Format,
        socket: Arc<TcpStream>,
        budget_bytes: usize,
        drainer: DrainerHandle,
        reader: Option<Arc<dyn Reader>>,
    ) -> io::Result<Arc<Self>> {
        Ok(Self::new((id, format), Peer::Socket(Wire::new(socket)?), budget_bytes, drainer, reader))
    }

    /// An outbox whose publications a consumer in this process takes with [`take`](Self::take).
    #[must_use]
    pub fn for_consumer(id: ConnectionId, budget_bytes: usize, drainer: DrainerHandle) -> Arc<Self> {
        Self::new((id, Format::default()), Peer::Consumer, budget_bytes, drainer, None)
    }

    /// Like [`for_consumer`](Self::for_consumer); `reader` is woken when there is something to take, and at the end.
    #[must_use]
    pub(crate) fn for_woken_consumer(
        id: ConnectionId,
        budget_bytes: usize,
        drainer: DrainerHandle,
        reader: Arc<dyn Reader>,
    ) -> Arc<Self> {
        Self::new((id, Format::default()), Peer::Consumer, budget_bytes, drainer, Some(reader))
    }

    fn new(
        (id, format): (ConnectionId, Format),
        peer: Peer,
        budget_bytes: usize,
        drainer: DrainerHandle,
        reader: Option<Arc<dyn Reader>>,
    ) -> Arc<Self> {
        let inner = Inner {
            state: if matches!(peer, Peer::Consumer) { State::Open } else { State::Corked },
            held: false,
            queue: Queue::default(),
            watch: Watch::Off { drained_at: None },
            notice_wanted: false,
            waiters: false,
            wake_at_bytes: None,
        };
        let metrics = drainer.metrics();
        Arc::new(Self {
            id,
            peer,
            format,
            budget_bytes,
            metrics,
            drainer,
            reader,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        })
    }

    /// The connection this outbox belongs to.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The format of its frames; a consumer in this process takes none.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The socket, for its reader. `None` for a consumer in this process.
    pub fn socket(&self) -> Option<&TcpStream> {
        match &self.peer {
            Peer::Socket(wire) => wire.socket(),
            Peer::Consumer => None,
        }
    }

    /// Whoever serves its connection.
    pub(crate) fn reader(&self) -> Option<&Arc<dyn Reader>> {
        self.reader.as_ref()
    }

    /// True when it takes publications and no frames.
    pub(crate) fn is_for_consumer(&self) -> bool {
        matches!(self.peer, Peer::Consumer)
    }

    /// Takes publications of a room, in the form its peer takes, if the budget allows it. Never
    /// blocks. An empty queue takes one packet of any size, so that no message is too large for a
    /// small budget.
    pub fn deliver(self: &Arc<Self>, packet: &Packet) -> Push {
        match (&self.peer, packet.frames(self.format), packet.publications()) {
            (Peer::Socket(_), Some(frames), _) => self.push(frames),
            (Peer::Consumer, _, Some(all)) => self.push_publications(all, packet.publication_bytes()),
            _ => {
                debug_assert!(false, "a packet was not packed for all that it is delivered to");
                Push::Full
            }
        }
    }

    fn push_publications(&self, publications: &[Publication], bytes: usize) -> Push {
        let mut inner = self.lock();
        if let Some(refused) = self.refuse(&inner, bytes) {
            return refused;
        }
        inner.queue.push_publications(publications, bytes);
        self.metrics.outbox_bytes.add(bytes as i64);
        self.wake(&mut inner);
        self.wake_reader();
        Push::Accepted
    }

    /// Takes a frame of a room, by the same rule as [`deliver`](Self::deliver). A consumer in this
    /// process takes no frames: for it the frame is accepted and dropped.
    pub fn push(self: &Arc<Self>, frame: &Bytes) -> Push {
        let mut inner = self.lock();
        if inner.held && inner.queue.bytes() + memory_bytes(frame) > self.budget_bytes {
            // A reply that could have left already is no reason to refuse a large frame.
            self.release_held(&mut inner);
        }
        if let Some(refused) = self.refuse(&inner, memory_bytes(frame)) {
            return refused;
        }
        let taken = self.send_or_queue(&mut inner, frame);
        debug_assert!(
            inner.queue.bytes() <= self.budget_bytes.max(memory_bytes(frame)),
            "{} bytes of rooms are queued in a budget of {}",
            inner.queue.bytes(),
            self.budget_bytes
        );
        taken
    }

    /// The reason not to take so many bytes of a room, if there is one.
    fn refuse(&self, inner: &Inner, bytes: usize) -> Option<Push> {
        if !inner.state.accepts() {
            return Some(Push::Closed);
        }
        let is_full = !inner.queue.is_empty() && inner.queue.bytes() + bytes > self.budget_bytes;
        is_full.then_some(Push::Full)
    }

    /// Takes a reply or a ping whatever the budget says. Never blocks; a reader whose client can cause
    /// many replies asks for [`wake_at_capacity`](Self::wake_at_capacity) between them. For a consumer
    /// in this process it is accepted and dropped.
    pub fn reply(self: &Arc<Self>, frame: &Bytes) -> Push {
        let mut inner = self.lock();
        if !inner.state.accepts() {
            return Push::Closed;
        }
        self.send_or_queue(&mut inner, frame)
    }

    /// Takes a reply that is to leave together with the next frame, in one send, or at
    /// [`release`](Self::release), which the caller has to call soon. The budget says nothing.
    pub fn hold(self: &Arc<Self>, frame: &Bytes) -> Push {
        let mut inner = self.lock();
        if !inner.state.accepts() {
            return Push::Closed;
        }
        if inner.state != State::Open || !inner.queue.is_empty() || self.is_for_consumer() {
            return self.send_or_queue(&mut inner, frame);
        }
        self.queue(&mut inner, frame.clone());
        inner.held = true;
        Push::Accepted
    }

    /// Sends what is held, if it has not left with another frame.
    pub fn release(self: &Arc<Self>) {
        let mut inner = self.lock();
        self.release_held(&mut inner);
    }

    fn release_held(self: &Arc<Self>, inner: &mut Inner) {
        if std::mem::take(&mut inner.held) {
            self.write_queue(inner);
        }
    }

    /// Takes the answer to a ping of the client, or drops it where it would have to wait: before the first
    /// reply, which nothing in the queue may overtake, and beyond the budget. One that waits is replaced by the next:
    /// RFC 6455 §5.5.3 lets a peer answer the last ping only.
    pub fn pong(self: &Arc<Self>, frame: &Bytes) -> Push {
        let mut inner = self.lock();
        match (&self.peer, inner.state) {
            (_, state) if !state.accepts() => Push::Closed,
            (Peer::Socket(wire), State::Corked) => match wire.send(frame) {
                Ok(count) if count == frame.len() => Push::Accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Push::Accepted,
                // A frame that is cut off leaves nothing that the client could read.
                Ok(_) | Err(_) => {
                    self.end(&mut inner, Ended::Broken);
                    Push::Closed
                }
            },
            _ if inner.queue.bytes() > self.budget_bytes => Push::Accepted,
            _ => match inner.queue.replace_back(frame, self::frame::is_pong) {
                Some(more) => {
                    self.metrics.outbox_bytes.add(more);
                    Push::Accepted
                }
                None => self.send_or_queue(&mut inner, frame),
            },
        }
    }

    /// Writes `first` before everything that was held back, then that, then goes on as usual. To be
    /// called once.
    pub fn uncork(self: &Arc<Self>, first: &Bytes) -> Push {
        let mut inner = self.lock();
        if !inner.state.accepts() {
            return Push::Closed;
        }
        debug_assert!(!self.is_for_consumer(), "a consumer takes no frame");
        inner.state.uncork();
        let more = inner.queue.push_front(first.clone());
        self.metrics.outbox_bytes.add(more as i64);
        self.write_queue(&mut inner);
        Push::Accepted
    }

    /// True while a packet of moderate size would be taken: at most half the budget is used.
    pub fn has_capacity(&self) -> bool {
        let inner = self.lock();
        inner.state.accepts() && inner.queue.bytes() <= self.budget_bytes / 2
    }

    /// True while more than the budget is queued.
    pub fn is_over_budget(&self) -> bool {
        self.lock().queue.bytes() > self.budget_bytes
    }

    /// True while more than the budget is queued: a client that asks faster than it reads is to be asked
    /// nothing more, and its reader to be woken when that is over or the outbox has ended.
    pub fn wake_at_capacity(&self) -> bool {
        self.wake_at(self.budget_bytes)
    }

    /// True while bytes are queued: the reader is to be woken when they are written, or the connection broke.
    pub fn wake_at_flushed(&self) -> bool {
        self.wake_at(0)
    }

    fn wake_at(&self, bytes: usize) -> bool {
        debug_assert!(self.reader.is_some(), "nobody would be woken");
        let mut inner = self.lock();
        let must_wait = inner.queue.bytes() > bytes;
        inner.wake_at_bytes = must_wait.then_some(bytes);
        must_wait
    }

    /// Waits for a change; gives the lock back as an error when `deadline` has passed.
    fn wait_until<'a>(
        &self,
        inner: MutexGuard<'a, Inner>,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'a, Inner>, MutexGuard<'a, Inner>> {
        let Some(deadline) = deadline else { return Ok(wait(&self.changed, inner)) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(inner) } else { Ok(wait_timeout(&self.changed, inner, left)) }
    }

    /// Asks for one notice on the drainer's channel when nothing is queued any more, so that the next
    /// packet is taken whatever its size, or the connection ended meanwhile. False when that is so
    /// already: then no notice comes.
    pub fn request_notice(&self) -> bool {
        let mut inner = self.lock();
        if !inner.state.accepts() || inner.queue.is_empty() {
            return false;
        }
        inner.notice_wanted = true;
        true
    }

    /// Queues a close frame behind what waits; nothing is taken any more. The socket is shut for
    /// writing once all is written. A consumer gets what waits, and then the code from
    /// [`take`](Self::take). The first close wins.
    pub fn close(self: &Arc<Self>, code: u16, reason: &str) {
        self.finish_with(code, &frame::close(code, reason));
    }

    /// Like [`close`](Self::close), with the frame that answers the peer's own close.
    pub fn finish_with(self: &Arc<Self>, code: u16, last: &Bytes) {
        let mut inner = self.lock();
        if !inner.state.accepts() {
            return;
        }
        inner.state.close(code);
        if let Peer::Socket(_) = self.peer {
            let _ = self.send_or_queue(&mut inner, last);
            // Whatever was held back may leave now, and needs somebody who sends it on.
            self.write_queue(&mut inner);
        } else {
            self.finish_if_drained(&mut inner);
        }
        self.wake(&mut inner);
        self.wake_reader();
    }

    /// Ends the connection at once; queued bytes are dropped.
    pub fn abort(&self) {
        let mut inner = self.lock();
        self.end(&mut inner, Ended::Broken);
    }

    /// The reason why nothing is taken any more; `None` while open.
    pub fn ended(&self) -> Option<Ended> {
        self.lock().state.ended()
    }

    /// Memory of what waits for the socket or the consumer, in bytes.
    pub fn queued_bytes(&self) -> usize {
        self.lock().queue.bytes()
    }

    /// True while frames wait for the socket, and for a `span` after the last of them was taken: what
    /// the kernel took may still be on its slow way.
    pub fn was_blocked_within(&self, span: Duration) -> bool {
        let inner = self.lock();
        let drained_lately = match inner.watch {
            Watch::Off { drained_at } => drained_at.is_some_and(|at| at.elapsed() < span),
            Watch::On { .. } => true,
        };
        drained_lately || !inner.queue.is_empty()
    }

    /// For the consumer: the next publication, waiting for it until `deadline` (`None`: for ever).
    ///
    /// # Errors
    /// The end of the outbox, once everything before it was taken; `None` when the time is over.
    pub fn take(&self, deadline: Option<Instant>) -> Result<Publication, Option<Ended>> {
        let mut inner = self.lock();
        loop {
            if let Some((publication, bytes)) = inner.queue.pop_publication() {
                self.metrics.outbox_bytes.sub(bytes as i64);
                self.finish_if_drained(&mut inner);
                return Ok(publication);
            }
            if let Some(ended) = inner.state.ended() {
                return Err(Some(ended));
            }
            inner.waiters = true;
            inner = self.wait_until(inner, deadline).map_err(|_| None)?;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic can only happen between two complete states, so a poisoned lock is as good.
        let inner = lock(&self.inner);
        debug_assert!(inner.is_sound(&self.peer) || thread::panicking(), "outbox {:?} is unsound", self.id);
        inner
    }

    /// Sends what can be sent at once and queues the remainder.
    fn send_or_queue(self: &Arc<Self>, inner: &mut Inner, frame: &Bytes) -> Push {
        debug_assert!(!matches!(inner.state, State::Ended(_)), "a frame is taken after the end");
        let Peer::Socket(wire) = &self.peer else { return Push::Accepted };
        if inner.held {
            self.queue(inner, frame.clone());
            self.release_held(inner);
            return if matches!(inner.state, State::Ended(_)) { Push::Closed } else { Push::Accepted };
        }
        let mut sent = 0;
        if inner.queue.is_empty() && inner.state.writes() {
            match wire.send(frame) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.end(inner, Ended::Broken);
                    return Push::Closed;
                }
            }
            debug_assert!(sent <= frame.len(), "the kernel took more than it was given");
            if sent == frame.len() {
                return Push::Accepted;
            }
        }
        self.queue(inner, frame.slice(sent..));
        if inner.state.writes() {
            self.watch(inner);
        }
        Push::Accepted
    }

    fn queue(&self, inner: &mut Inner, frame: Bytes) {
        let more = inner.queue.push_back(frame);
        self.metrics.outbox_bytes.add(more as i64);
    }

    /// Writes queued buffers until none is left or the kernel takes no more.
    fn write_queue(self: &Arc<Self>, inner: &mut Inner) {
        let Peer::Socket(wire) = &self.peer else { return };
        debug_assert!(inner.state != State::Corked, "a corked outbox writes nothing");
        while !inner.queue.is_empty() {
            match wire.send_queue(inner.queue.buffers(), inner.queue.front_sent()) {
                Ok(count) => self.consume(inner, count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.watch(inner);
                    return;
                }
                Err(_) => {
                    self.end(inner, Ended::Broken);
                    return;
                }
            }
        }
        self.unwatch(inner);
        self.finish_if_drained(inner);
    }

    /// Removes `count` written bytes from the front of the queue.
    fn consume(&self, inner: &mut Inner, count: usize) {
        let less = inner.queue.consume(count);
        self.metrics.outbox_bytes.sub(less as i64);
        if let Watch::On { progress_at } = &mut inner.watch {
            *progress_at = Instant::now();
        }
        if inner.wake_at_bytes.is_some_and(|bytes| inner.queue.bytes() <= bytes) {
            inner.wake_at_bytes = None;
            self.wake_reader();
        }
    }

    /// Does what is due once nothing is queued any more.
    fn finish_if_drained(&self, inner: &mut Inner) {
        if !inner.queue.is_empty() {
            return;
        }
        if inner.notice_wanted {
            inner.notice_wanted = false;
            self.drainer.notify(self.id);
        }
        if inner.state.drained() {
            self.shut(Shutdown::Write);
        }
    }

    fn watch(self: &Arc<Self>, inner: &mut Inner) {
        debug_assert!(!inner.queue.is_empty() && inner.state.writes(), "there is nothing to wait for");
        if matches!(inner.watch, Watch::On { .. }) {
            return;
        }
        if let Peer::Socket(wire) = &self.peer {
            let watched: Arc<dyn Watched> = self.clone();
            if self.drainer.watch(self.id, watched, wire).is_err() {
                self.end(inner, Ended::Broken);
                return;
            }
            inner.watch = Watch::On { progress_at: Instant::now() };
        }
    }

    fn unwatch(&self, inner: &mut Inner) {
        if matches!(inner.watch, Watch::On { .. })
            && let Peer::Socket(wire) = &self.peer
        {
            inner.watch = Watch::Off { drained_at: Some(Instant::now()) };
            self.drainer.unwatch(self.id, wire);
        }
    }

    fn end(&self, inner: &mut Inner, why: Ended) {
        inner.state.end(why);
        let dropped = inner.queue.clear();
        (inner.held, inner.wake_at_bytes) = (false, None);
        self.metrics.outbox_bytes.sub(dropped as i64);
        self.unwatch(inner);
        // Whoever asked must hear of the end too, or it would keep for ever what it wants to push.
        self.finish_if_drained(inner);
        self.shut(Shutdown::Both);
        self.wake(inner);
        self.wake_reader();
    }

    fn shut(&self, how: Shutdown) {
        if let Peer::Socket(wire) = &self.peer {
            wire.shutdown(how);
        }
    }

    fn wake(&self, inner: &mut Inner) {
        if inner.waiters {
            inner.waiters = false;
            self.changed.notify_all();
        }
    }

    /// Has its connection looked at soon.
    pub(crate) fn wake_reader(&self) {
        if let Some(reader) = &self.reader {
            reader.wake(self.id);
        }
    }
}

impl Watched for Outbox {
    fn on_writable(self: Arc<Self>) {
        let mut inner = self.lock();
        if matches!(inner.watch, Watch::On { .. }) {
            self.write_queue(&mut inner);
        }
    }

    fn check_stall(&self, now: Instant, stall_timeout: Duration) {
        let mut inner = self.lock();
        if let Watch::On { progress_at } = inner.watch
            && now.saturating_duration_since(progress_at) >= stall_timeout
        {
            self.metrics.stalled_total.inc();
            self.end(&mut inner, Ended::Stalled);
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.metrics.outbox_bytes.sub(self.queued_bytes() as i64);
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
