//! How many reader threads there are, counted by what they do: as many are active as there are processors, and
//! beside them as many as wait for the database.
//!
//! An active thread waits for an event or serves one. More than the processors would only take turns on them:
//! each event would wake a thread while the one that could have taken it next is at work. A thread that is about to
//! wait is replaced first. Pure but for its lock: it says what is to be done, and starts and wakes nobody.

use crate::sync::{Mutex, lock};

/// The counts, and their bounds.
#[derive(Debug)]
pub(super) struct Threads {
    counts: Mutex<Counts>,
    /// Most threads.
    most: usize,
    /// Most active threads, unless one comes back from a wait.
    active_most: usize,
}

/// Each thread is counted in one of the four.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Wait for an event.
    polling: usize,
    /// Serve a connection.
    computing: usize,
    /// Wait for something else while they serve: a commit, a query.
    waiting: usize,
    /// Sleep until another active thread is wanted.
    asleep: usize,
}

/// A wish for threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// There are enough.
    Nothing,
    /// One that sleeps is to be woken; it is counted as polling already.
    Wake,
    /// One more is to be started; it is counted as polling already.
    OneMore,
    /// All wait that there may be: nobody is left to serve.
    Exhausted,
}

impl Threads {
    /// No thread yet.
    pub(super) fn new(most: usize, processors: usize) -> Self {
        debug_assert!(most > 0, "somebody has to serve");
        Self { counts: Mutex::default(), most, active_most: processors.max(1) }
    }

    /// Counts a thread that is about to be started.
    pub(super) fn add(&self) {
        lock(&self.counts).polling += 1;
    }

    /// A thread that was to be started could not be.
    pub(super) fn take_back(&self) {
        lock(&self.counts).polling -= 1;
    }

    /// A polling thread got an event.
    pub(super) fn begin(&self) -> Wish {
        self.change(|counts| {
            counts.polling -= 1;
            counts.computing += 1;
        })
    }

    /// A computing thread is about to wait for something else.
    pub(super) fn wait_begins(&self) -> Wish {
        self.change(|counts| {
            counts.computing -= 1;
            counts.waiting += 1;
        })
    }

    /// It goes on.
    pub(super) fn wait_ended(&self) {
        let mut counts = lock(&self.counts);
        counts.waiting -= 1;
        counts.computing += 1;
    }

    /// A computing thread is through. True when it is to wait for an event, false when it is to sleep.
    pub(super) fn end(&self) -> bool {
        let mut counts = lock(&self.counts);
        counts.computing -= 1;
        let polls = counts.polling + counts.computing < self.active_most;
        if polls {
            counts.polling += 1;
        } else {
            counts.asleep += 1;
        }
        polls
    }

    /// A thread has slept for long. True when it may go, and is no longer counted; false when it is being woken.
    pub(super) fn may_leave(&self) -> bool {
        let mut counts = lock(&self.counts);
        let may = counts.asleep > 0;
        counts.asleep -= usize::from(may);
        may
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) -> Wish {
        let mut counts = lock(&self.counts);
        change(&mut counts);
        if counts.polling > 0 || counts.computing >= self.active_most {
            return Wish::Nothing;
        }
        if counts.asleep > 0 {
            counts.asleep -= 1;
            counts.polling += 1;
            return Wish::Wake;
        }
        if counts.computing + counts.waiting < self.most {
            counts.polling += 1;
            return Wish::OneMore;
        }
        if counts.computing == 0 { Wish::Exhausted } else { Wish::Nothing }
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_is_replaced_up_to_the_bound() {
        let threads = Threads::new(2, 1);
        threads.add();
        assert_eq!(threads.begin(), Wish::Nothing, "one processor, one active thread");
        assert_eq!(threads.wait_begins(), Wish::OneMore);
        assert_eq!(threads.begin(), Wish::Nothing);
        assert_eq!(threads.wait_begins(), Wish::Exhausted, "two are all");
        threads.wait_ended();
        assert!(threads.end(), "nobody else waits for events");
        threads.wait_ended();
        assert!(!threads.end(), "one does");
        assert_eq!(threads.begin(), Wish::Nothing);
        assert_eq!(threads.wait_begins(), Wish::Wake);
        assert!(!threads.may_leave(), "it is being woken");
        threads.wait_ended();
        assert!(!threads.end());
        assert!(threads.may_leave());
    }

    #[test]
    fn there_are_as_many_active_threads_as_processors() {
        let threads = Threads::new(100, 2);
        threads.add();
        assert_eq!(threads.begin(), Wish::OneMore);
        assert_eq!(threads.begin(), Wish::Nothing, "a third would only take turns with them");
        assert_eq!(threads.wait_begins(), Wish::OneMore);
    }
}
