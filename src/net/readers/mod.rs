//! The reader threads: they lend themselves to connections that have something to do.
//!
//! A connection is a value. While it has nothing to do it is parked in its seat and owns no thread; bytes, a
//! wake-up or a deadline give it one for a turn. Knows nothing of what connections say: see
//! [`Connection`].

mod deadlines;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod poller;
#[cfg(any(all(test, not(feature = "model")), not(any(target_os = "linux", target_os = "android"))))]
mod portable;
mod seats;
mod threads;
mod wait;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(any(target_os = "linux", target_os = "android"))]
use poller::Poller;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use portable::Poller;

pub(super) use wait::{Connection, Interest, Next, Tick, Wait};

use deadlines::Deadlines;
use seats::Seats;
use threads::{Threads, Wish};
use wait::Told;

use crate::ids::ConnectionId;
use crate::limits::READER_STACK_BYTES;
use crate::metrics::Metrics;
use crate::outbox::{Reader, Work};
use crate::sync::blocking::{self, For, Lender};

/// Time after which a thread without events goes, unless it is the last.
const IDLE: Duration = Duration::from_secs(10);

/// Time between two warnings that all threads wait for something.
const WARNING_INTERVAL_SECONDS: u64 = 60;

/// Time the threads have to end at the stop.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Something that waits for a thread.
enum Task<C> {
    /// A turn of a connection, which the queue owns.
    Turn(Box<C>),
    /// A turn of a parked connection, whose deadlines are looked at until it comes.
    Asked(ConnectionId),
    Work(Work),
}

/// The threads and the connections they serve.
pub(super) struct Readers<C> {
    seats: Seats<C>,
    /// What is to be done without an event of a socket. Bounded by the number of connections and of commit
    /// lanes.
    queue: Mutex<VecDeque<Task<C>>>,
    poller: Poller,
    deadlines: Deadlines,
    threads: Threads,
    metrics: Arc<Metrics>,
    stopping: AtomicBool,
    started_at: Instant,
    warned_at_second: AtomicU64,
    running: (Mutex<usize>, Condvar),
    names: AtomicU64,
}

impl<C: Connection> Readers<C> {
    /// Starts one thread that serves and one that looks at deadlines; there will be at most `readers_max`
    /// that serve.
    ///
    /// # Errors
    /// When the system gives no thread or file.
    pub(super) fn start(readers_max: usize, metrics: Arc<Metrics>) -> io::Result<Arc<Self>> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let readers = Arc::new(Self {
            seats: Seats::default(),
            queue: Mutex::default(),
            poller: Poller::new()?,
            deadlines: Deadlines::default(),
            threads: Threads::new(readers_max, processors),
            metrics,
            stopping: AtomicBool::new(false),
            started_at: Instant::now(),
            warned_at_second: AtomicU64::new(0),
            running: Default::default(),
            names: AtomicU64::new(0),
        });
        let clock = readers.clone();
        readers.spawn("deadlines".into(), move || clock.watch_deadlines())?;
        readers.threads.add();
        if let Err(error) = readers.spawn_reader() {
            readers.stop();
            return Err(error);
        }
        Ok(readers)
    }

    /// Takes a connection in, which waits for its first bytes until `deadline`.
    ///
    /// # Errors
    /// When its socket cannot be waited for; the connection is dropped then.
    pub(super) fn add(&self, connection: Box<C>, deadline: Instant) -> io::Result<()> {
        let (id, socket) = (connection.id(), connection.socket().clone());
        self.seats.add(id);
        // Armed before it is parked: whoever is told meanwhile marks the seat, which `park` sees.
        if let Err(error) = self.poller.add(id, &socket, Interest::Read) {
            self.seats.remove(id);
            return Err(error);
        }
        if let Err(connection) = self.park(connection, Some(deadline)) {
            self.enqueue(Task::Turn(connection));
        }
        Ok(())
    }

    /// Gives every connection a turn.
    pub(super) fn wake_all(&self) {
        self.seats.ids().into_iter().for_each(|id| self.wake(id));
    }

    /// Ends the threads, once they are through with what they are at. Connections that are left are dropped
    /// with this.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.deadlines.stop();
        let deadline = Instant::now() + STOP_WAIT;
        let mut running = self.running.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *running > 0 && Instant::now() < deadline {
            // One ring wakes one thread, which may be on its way out already.
            self.poller.ring();
            let slice = Duration::from_millis(10);
            let waited = self.running.1.wait_timeout(running, slice);
            running = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if *running > 0 {
            tracing::error!(threads = *running, "readers did not stop in time");
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn spawn_reader(self: &Arc<Self>) -> io::Result<()> {
        let readers = self.clone();
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let spawned = self.spawn(format!("reader-{number}"), move || readers.serve_events());
        match &spawned {
            Ok(()) => self.metrics.readers.inc(),
            Err(_) => self.threads.take_back(),
        }
        spawned
    }

    fn spawn(self: &Arc<Self>, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let readers = self.clone();
        *self.running.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let spawned = thread::Builder::new().name(name).stack_size(READER_STACK_BYTES).spawn(move || {
            work();
            readers.thread_ended();
        });
        spawned.map(drop).inspect_err(|_| self.thread_ended())
    }

    fn thread_ended(&self) {
        *self.running.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.running.1.notify_all();
    }

    /// Follows a wish for threads. A thread that cannot be had is no error: its work waits for the others.
    fn follow(self: &Arc<Self>, wish: Wish) {
        match wish {
            Wish::Nothing => {}
            Wish::OneMore => {
                if let Err(error) = self.spawn_reader() {
                    self.warn(&format!("the system gives no more threads: {error}"));
                }
            }
            Wish::Exhausted => {
                self.metrics.readers_exhausted_total.inc();
                self.warn(
                    "all readers wait for the database or the rooms: see readers_max and the commit times",
                );
            }
        }
    }

    fn warn(&self, text: &str) {
        let now = self.started_at.elapsed().as_secs() + WARNING_INTERVAL_SECONDS;
        let last = self.warned_at_second.load(Ordering::Relaxed);
        let is_time = now >= last + WARNING_INTERVAL_SECONDS;
        let swap = |now| {
            self.warned_at_second.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if is_time && swap(now) {
            tracing::warn!("{text}");
        }
    }

    /// The loop of a thread that serves.
    fn serve_events(self: Arc<Self>) {
        blocking::belong_to(Arc::new(Waits(self.clone())));
        let reader: Arc<dyn Reader> = self.clone();
        while !self.is_stopping() {
            let Some(told) = self.poller.wait(IDLE) else {
                if self.threads.may_leave() {
                    break;
                }
                continue;
            };
            self.follow(self.threads.begin());
            self.serve_event(told, &reader);
            self.threads.end();
        }
        if self.is_stopping() {
            // Rings that come before anybody listens are one.
            self.poller.ring();
        }
        self.metrics.readers.dec();
    }

    /// Serves what an event names, and one of the queue, which would come last behind many busy sockets.
    fn serve_event(&self, told: Told, reader: &Arc<dyn Reader>) {
        if let Told::Socket(id) = told
            && let Some(connection) = self.seats.take(id)
        {
            self.serve(connection, reader);
        }
        match self.dequeue() {
            Some(Task::Turn(connection)) => self.serve(connection, reader),
            Some(Task::Asked(id)) => {
                if let Some(connection) = self.seats.take_asked(id) {
                    self.serve(connection, reader);
                }
            }
            Some(Task::Work(work)) => self.work(work),
            None => {}
        }
    }

    /// Gives a connection turns until it waits for something, and then does the work that they left: at once, for
    /// another turn might wait for it.
    fn serve(&self, connection: Box<C>, reader: &Arc<dyn Reader>) {
        if let Some(work) = self.give_turns(connection, reader) {
            self.work(work);
        }
    }

    fn work(&self, work: Work) {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.metrics.reader_panics_total.inc();
        }
    }

    fn dequeue(&self) -> Option<Task<C>> {
        let mut queue = self.queue();
        let first = queue.pop_front()?;
        if !queue.is_empty() {
            // Rings that come before anybody listens are one, so each one that is heard has to pass it on.
            self.poller.ring();
        }
        Some(first)
    }

    fn give_turns(&self, mut connection: Box<C>, reader: &Arc<dyn Reader>) -> Option<Work> {
        loop {
            let turn = catch_unwind(AssertUnwindSafe(|| connection.turn(reader)));
            let work = connection.take_work();
            let wait = match turn {
                Ok(Next::Wait(wait)) => wait,
                Ok(Next::Again) => {
                    self.enqueue(Task::Turn(connection));
                    return work;
                }
                Ok(Next::End) => {
                    self.remove(connection);
                    return work;
                }
                Err(_) => {
                    self.metrics.reader_panics_total.inc();
                    self.remove(connection);
                    return work;
                }
            };
            match self.arm_and_park(connection, wait) {
                Ok(()) => return work,
                // The work is not for a thread that owns a connection, for it may wait long.
                Err(woken) => {
                    work.into_iter().for_each(|work| self.enqueue(Task::Work(work)));
                    connection = woken;
                }
            }
        }
    }

    fn arm_and_park(&self, connection: Box<C>, wait: Wait) -> Result<(), Box<C>> {
        let id = connection.id();
        let arm = |connection: &C| {
            if let Some(interest) = wait.interest {
                self.poller.arm(id, connection.socket(), interest);
            }
        };
        let list = |before, at| self.deadlines.list(id, before, at);
        self.seats.arm_and_park(id, connection, arm, wait.deadline, list)
    }

    fn park(&self, connection: Box<C>, deadline: Option<Instant>) -> Result<(), Box<C>> {
        let id = connection.id();
        self.seats.park(id, connection, deadline, |before, at| self.deadlines.list(id, before, at))
    }

    fn enqueue(&self, task: Task<C>) {
        self.queue().push_back(task);
        self.poller.ring();
    }

    fn remove(&self, connection: Box<C>) {
        let id = connection.id();
        if let Some(at) = self.seats.remove(id) {
            self.deadlines.strike(id, at);
        }
        if catch_unwind(AssertUnwindSafe(|| drop(connection))).is_err() {
            self.metrics.reader_panics_total.inc();
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Task<C>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of the thread that looks at deadlines. It gives no turns, which may wait: pings are on time
    /// even when all readers wait for the database.
    fn watch_deadlines(self: Arc<Self>) {
        while let Some(id) = self.deadlines.next() {
            let Some(mut connection) = self.seats.take_due(id) else { continue };
            match catch_unwind(AssertUnwindSafe(|| connection.tick(Instant::now()))) {
                // Its socket is armed as it was, or an event has marked its seat.
                Ok(Tick::Until(deadline)) => {
                    if let Err(woken) = self.park(connection, deadline) {
                        self.enqueue(Task::Turn(woken));
                    }
                }
                Ok(Tick::Turn(deadline)) => match self.park(connection, deadline) {
                    Ok(()) if self.seats.ask(id) => self.enqueue(Task::Asked(id)),
                    Ok(()) => {}
                    Err(woken) => self.enqueue(Task::Turn(woken)),
                },
                Err(_) => {
                    self.metrics.reader_panics_total.inc();
                    self.remove(connection);
                }
            }
        }
    }
}

impl<C: Connection> Reader for Readers<C> {
    fn run(&self, work: Work) {
        self.enqueue(Task::Work(work));
    }

    fn wake(&self, id: ConnectionId) {
        if let Some(connection) = self.seats.take(id) {
            self.enqueue(Task::Turn(connection));
        }
    }
}

/// Tells the pool what its threads wait for.
struct Waits<C>(Arc<Readers<C>>);

impl<C: Connection> Lender for Waits<C> {
    fn wait_begins(&self, what: For) -> bool {
        let wish = self.0.threads.wait_begins(what);
        wish.map(|wish| self.0.follow(wish)).is_some()
    }

    fn wait_ended(&self, what: For) {
        if let Some(since) = self.0.threads.wait_ended(what) {
            self.0.metrics.readers_exhausted_seconds_total.inc_by(since.elapsed().as_secs_f64());
        }
    }
}

impl<C> fmt::Debug for Readers<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests;
