//! How many reader threads there are: counted by what they do, so that there is always one that waits for
//! events, few that compute, and as many as wait for the database.
//!
//! Pure but for its lock: it says when a thread is to be started, and starts none.

use std::time::Instant;

use crate::sync::blocking::For;
use crate::sync::{Mutex, lock};

/// Most threads that are replaced while they wait for capacity in a queue: some, so that a full shard does not hold up
/// the rooms of others; few, because more senders only make the queue longer.
const QUEUEING_MAX: usize = 32;

/// The counts, and their bounds.
#[derive(Debug)]
pub(super) struct Threads {
    counts: Mutex<Counts>,
    /// Most threads.
    most: usize,
    /// Most threads that compute before no more are added for it, that is the number of processors: more only
    /// take turns on them.
    computing_most: usize,
}

/// Each thread is counted in one of the first three.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// Wait for an event.
    idle: usize,
    /// Serve a connection.
    computing: usize,
    /// Wait for something else while they serve one: a commit, a query.
    waiting: usize,
    /// Those among them that wait for capacity in a queue.
    queueing: usize,
    /// Since when all wait that there may be.
    exhausted_since: Option<Instant>,
}

/// A wish for threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// There are enough.
    Nothing,
    /// One more, which is counted as idle already.
    OneMore,
    /// All wait that there may be: nobody is left to serve.
    Exhausted,
}

impl Counts {
    pub(super) fn total(self) -> usize {
        self.idle + self.computing + self.waiting
    }
}

impl Threads {
    /// No thread yet.
    pub(super) fn new(most: usize, processors: usize) -> Self {
        debug_assert!(most > 0, "somebody has to serve");
        Self { counts: Mutex::default(), most, computing_most: processors.max(1) }
    }

    /// Counts a thread that is about to be started.
    pub(super) fn add(&self) {
        lock(&self.counts).idle += 1;
    }

    /// A thread that was to be started could not be.
    pub(super) fn take_back(&self) {
        lock(&self.counts).idle -= 1;
    }

    /// An idle thread got an event.
    pub(super) fn begin(&self) -> Wish {
        self.change(|counts| {
            counts.idle -= 1;
            counts.computing += 1;
        })
    }

    /// A computing thread is about to wait for something else. `None`: it is not replaced, and its wait has no end
    /// to be told.
    pub(super) fn wait_begins(&self, what: For) -> Option<Wish> {
        if what == For::Queue {
            let mut counts = lock(&self.counts);
            if counts.queueing >= QUEUEING_MAX {
                return None;
            }
            counts.queueing += 1;
        }
        Some(self.change(|counts| {
            counts.computing -= 1;
            counts.waiting += 1;
        }))
    }

    /// It goes on. The moment since which all that there may be had waited, if they did.
    pub(super) fn wait_ended(&self, what: For) -> Option<Instant> {
        let mut counts = lock(&self.counts);
        counts.waiting -= 1;
        counts.computing += 1;
        counts.queueing -= usize::from(what == For::Queue);
        counts.exhausted_since.take()
    }

    /// A computing thread goes back to wait for an event.
    pub(super) fn end(&self) {
        let mut counts = lock(&self.counts);
        counts.computing -= 1;
        counts.idle += 1;
    }

    /// An idle thread has had no event for long. True when it may go, and is no longer counted.
    pub(super) fn may_leave(&self) -> bool {
        let mut counts = lock(&self.counts);
        let may = counts.idle > 1;
        counts.idle -= usize::from(may);
        may
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) -> Wish {
        let mut counts = lock(&self.counts);
        change(&mut counts);
        if counts.idle > 0 || counts.computing >= self.computing_most {
            return Wish::Nothing;
        }
        if counts.total() >= self.most {
            if counts.computing > 0 {
                return Wish::Nothing;
            }
            counts.exhausted_since = Some(Instant::now());
            return Wish::Exhausted;
        }
        counts.idle += 1;
        Wish::OneMore
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use super::*;

    #[test]
    fn somebody_waits_for_events_while_others_wait_for_the_database() {
        let threads = Threads::new(2, 2);
        threads.add();
        assert_eq!(threads.begin(), Wish::OneMore);
        assert_eq!(threads.wait_begins(For::Answer), Some(Wish::Nothing));
        assert_eq!(threads.begin(), Wish::Nothing, "two are all, and one serves");
        assert_eq!(threads.wait_begins(For::Answer), Some(Wish::Exhausted));
        assert!(threads.wait_ended(For::Answer).is_some(), "nobody was left until now");
        threads.end();
        assert!(!threads.may_leave(), "the last that waits for events stays");
        assert_eq!(threads.wait_ended(For::Answer), None);
        threads.end();
        assert!(threads.may_leave());
    }

    #[test]
    fn no_thread_is_added_to_compute_beyond_the_processors() {
        let threads = Threads::new(100, 2);
        threads.add();
        let wishes: Vec<_> = (0..2).map(|_| threads.begin()).collect();
        assert_eq!(wishes, [Wish::OneMore, Wish::Nothing]);
        assert_eq!(threads.wait_begins(For::Answer), Some(Wish::OneMore), "one that waits computes nothing");
    }

    #[test]
    fn few_are_replaced_while_they_wait_for_a_queue() {
        let threads = Threads::new(1000, 1);
        threads.add();
        for _ in 0..QUEUEING_MAX {
            assert_eq!(threads.begin(), Wish::Nothing);
            assert_eq!(threads.wait_begins(For::Queue), Some(Wish::OneMore));
        }
        assert_eq!(threads.begin(), Wish::Nothing);
        assert_eq!(threads.wait_begins(For::Queue), None);
        assert_eq!(threads.wait_begins(For::Answer), Some(Wish::OneMore), "others are");
        threads.wait_ended(For::Queue);
        assert_eq!(threads.wait_begins(For::Queue), Some(Wish::Nothing), "one is free again");
    }
}
