//! A pool of one thread a core walks the members, each thread one chunk after the other, while the shard
//! serves its other rooms.
//!
//! The room keeps its member list and sends nothing else until the slice is served, so no packet of the room
//! can overtake another; within one outbox there is only one packet to push. Nobody but the pool waits
//! for the pool.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::processor;
use super::slice::{self, Outcome};
use crate::engine::members::Members;
use crate::outbox::Packet;

/// Members served at a time: enough that taking them costs nothing beside their sends, few enough
/// that nobody waits long for the last one.
const CHUNK: usize = 32;

/// Of the whole process, started by the first room that needs it. `None`: the system gives no threads.
static POOL: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    ThreadPoolBuilder::new()
        .thread_name(|number| format!("fan-out-{number}"))
        .start_handler(|_| processor::step_back())
        .build()
        .inspect_err(|error| tracing::error!(%error, "no threads for large rooms; their workers serve them"))
        .ok()
});

/// The threads that serve a slice together.
pub(in crate::engine) fn pool() -> Option<&'static ThreadPool> {
    POOL.as_ref()
}

/// A slice of a fan-out that the pool serves.
pub(in crate::engine) struct PoolSlice {
    members: Range<usize>,
    packet: Packet,
    /// Start of the next chunk; at the end or behind it when all are taken.
    next: AtomicUsize,
    state: Mutex<State>,
    /// Processors on which a thread has begun its part, a bit each.
    taken: AtomicU64,
    /// False: the threads stay where the scheduler has put them.
    spreads: bool,
    /// Called once, when the slice is served.
    done: Box<dyn Fn() + Send + Sync>,
}

/// Outcome of a served slice, or the panic that ended it.
type Served = thread::Result<Outcome>;

struct State {
    /// `None` once the slice is served or given up: then the room may change the list again.
    list: Option<Arc<Members>>,
    /// Threads that have not done their part yet, and those of them that have begun.
    at_work: usize,
    walking: usize,
    served: Served,
}

impl PoolSlice {
    /// Starts delivering the packet to the live ones of these members. With `spreads` each thread looks for a
    /// processor of its own first. `done` is called by a thread of the pool when all are served.
    pub(in crate::engine) fn start(
        pool: &ThreadPool,
        list: Arc<Members>,
        members: Range<usize>,
        packet: Packet,
        spreads: bool,
        done: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let at_work = pool.current_num_threads();
        let state = State { list: Some(list), at_work, walking: 0, served: Ok(Outcome::default()) };
        let started = Arc::new(Self {
            next: AtomicUsize::new(members.start),
            members,
            packet,
            state: Mutex::new(state),
            taken: AtomicU64::default(),
            spreads,
            done: Box::new(done),
        });
        let of_pool = started.clone();
        pool.spawn_broadcast(move |_| of_pool.serve());
        started
    }

    /// Position behind the last member of the slice.
    pub(in crate::engine) fn end(&self) -> usize {
        self.members.end
    }

    /// Its outcome; `None` while it is not served.
    pub(in crate::engine) fn served(&self) -> Option<Served> {
        let mut state = self.lock();
        state.list.is_none().then(|| std::mem::replace(&mut state.served, Ok(Outcome::default())))
    }

    /// Ends it after the chunks that are being served, and waits for these. Threads that have not begun will
    /// not, and nobody waits for them: they may be waiting for the caller's queue.
    pub(in crate::engine) fn abandon(&self) {
        self.next.store(self.members.end, Ordering::Relaxed);
        loop {
            let mut state = self.lock();
            if state.walking == 0 {
                state.list = None;
                return;
            }
            drop(state);
            thread::yield_now();
        }
    }

    /// The part of one thread.
    fn serve(&self) {
        let Some(list) = self.begin() else { return };
        let served = catch_unwind(AssertUnwindSafe(|| {
            if self.spreads {
                processor::find_free(&self.taken);
            }
            self.walk(&list)
        }));
        // Whoever hears that the slice is served is the only owner of the list again.
        drop(list);
        if self.finish(served) {
            (self.done)();
        }
    }

    /// `None` when it was given up.
    fn begin(&self) -> Option<Arc<Members>> {
        let mut state = self.lock();
        let list = state.list.clone()?;
        state.walking += 1;
        Some(list)
    }

    fn walk(&self, list: &Members) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let from = self.next.fetch_add(CHUNK, Ordering::Relaxed);
            if from >= self.members.end {
                return outcome;
            }
            let until = self.members.end.min(from + CHUNK);
            outcome.merge(slice::fan_out(&list.as_slice()[from..until], from, &self.packet));
            // A reader with a message for a small room waits for one chunk, not for the scheduler's tick.
            thread::yield_now();
        }
    }

    /// True for the last one.
    fn finish(&self, served: Served) -> bool {
        let mut state = self.lock();
        match (&mut state.served, served) {
            (Ok(total), Ok(outcome)) => total.merge(outcome),
            (total @ Ok(_), panic) => *total = panic,
            (Err(_), _) => {}
        }
        debug_assert!(state.walking > 0 && state.walking <= state.at_work, "threads were counted wrongly");
        state.walking -= 1;
        state.at_work -= 1;
        let is_last = state.at_work == 0;
        if is_last {
            state.list = None;
        }
        is_last
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for PoolSlice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolSlice").field("members", &self.members).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;

    /// A slice of a list that does not have it: whoever walks it panics.
    fn start(list: &Arc<Members>, done: impl Fn() + Send + Sync + 'static) -> Arc<PoolSlice> {
        PoolSlice::start(pool().unwrap(), list.clone(), 0..10 * CHUNK, Packet::default(), true, done)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn only_pool_threads_lower_their_priority() {
        use rustix::process::getpriority_process;
        let own = getpriority_process(None).unwrap();
        let of_pool = pool().unwrap().broadcast(|_| getpriority_process(None).unwrap());
        assert!(of_pool.iter().all(|nice| *nice == (own + processor::NICE).min(19)), "{of_pool:?}");
        assert_eq!(getpriority_process(None).unwrap(), own);
    }

    #[test]
    fn a_panic_in_the_pool_is_returned_and_releases_the_list() {
        let list = Arc::new(Members::default());
        let (done, told) = bounded(1);
        let slice = start(&list, move || done.send(()).unwrap());
        told.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(slice.served().unwrap().is_err());
        assert_eq!(Arc::strong_count(&list), 1);
    }

    #[test]
    fn abandoning_a_slice_does_not_wait_for_busy_pool_threads() {
        let list = Arc::new(Members::default());
        let (let_go, hold) = bounded::<()>(0);
        pool().unwrap().spawn_broadcast(move |_| {
            let _ = hold.recv();
        });
        let slice = start(&list, || {});
        assert!(slice.served().is_none());
        slice.abandon();
        assert!(slice.served().unwrap().is_ok());
        assert_eq!(Arc::strong_count(&list), 1, "while the pool still is elsewhere");
        drop(let_go);
    }
}
