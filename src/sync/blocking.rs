//! Waits that may take long, told to whoever lends the calling thread its work.
//!
//! A pool with few threads for many connections has to know which of them sleep in a commit or a query, for
//! then another thread must serve the rest. The thread registers its pool once; code far below, which knows
//! no pool, wraps what may wait.

use std::cell::RefCell;
use std::sync::Arc;

/// What a thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// A disk, a database, or the answer of another thread.
    Answer,
    /// Capacity in a queue that is emptied as fast as there are processors.
    Queue,
}

/// A pool whose threads may wait for something else than work.
pub(crate) trait Lender: Send + Sync {
    /// The calling thread is about to wait. False when the pool does not care; then no end is told.
    fn wait_begins(&self, what: For) -> bool;

    /// The calling thread goes on.
    fn wait_ended(&self, what: For);
}

thread_local! {
    static LENDER: RefCell<Option<Arc<dyn Lender>>> = const { RefCell::new(None) };
}

/// Names the pool that the calling thread belongs to, until it ends.
pub(crate) fn belong_to(lender: Arc<dyn Lender>) {
    LENDER.set(Some(lender));
}

/// Runs `work`, which may wait for a disk, a database or another thread. Its pool is told, if the calling
/// thread has one; a wait within a wait is told once.
pub(crate) fn waiting<R>(work: impl FnOnce() -> R) -> R {
    waiting_for(For::Answer, work)
}

/// Like [`waiting`], for what `work` waits for.
pub(crate) fn waiting_for<R>(what: For, work: impl FnOnce() -> R) -> R {
    // Taken out for as long as it lasts, so that a wait within this one finds none.
    let Some(lender) = LENDER.take() else { return work() };
    let told = lender.wait_begins(what).then_some(what);
    let _ended = Ended { lender: Some(lender), told };
    work()
}

/// Tells the end of a wait, also when it panics.
struct Ended {
    lender: Option<Arc<dyn Lender>>,
    told: Option<For>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(lender) = self.lender.take() {
            if let Some(what) = self.told {
                lender.wait_ended(what);
            }
            LENDER.set(Some(lender));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicI32, Ordering};
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Counter {
        begun: AtomicI32,
        ended: AtomicI32,
    }

    impl Lender for Counter {
        fn wait_begins(&self, what: For) -> bool {
            self.begun.fetch_add(1, Ordering::Relaxed);
            what == For::Answer
        }

        fn wait_ended(&self, what: For) {
            assert_eq!(what, For::Answer, "the end of a wait that the pool does not care for");
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_wait_is_told_once_and_to_its_end() {
        let counter = Arc::new(Counter::default());
        let told = |counter: &Counter| {
            (counter.begun.load(Ordering::Relaxed), counter.ended.load(Ordering::Relaxed))
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(waiting(|| 1), 1);
                assert_eq!(told(&counter), (0, 0), "a thread without a pool tells nobody");
                belong_to(counter.clone());
                waiting(|| {
                    assert_eq!(told(&counter), (1, 0));
                    waiting(|| assert_eq!(told(&counter), (1, 0)));
                });
                assert_eq!(told(&counter), (1, 1));
                let panicked = catch_unwind(AssertUnwindSafe(|| waiting(|| panic!("on purpose"))));
                assert!(panicked.is_err());
                assert_eq!(told(&counter), (2, 2));
                waiting(|| ());
                assert_eq!(told(&counter), (3, 3));
                waiting_for(For::Queue, || ());
                assert_eq!(told(&counter), (4, 3));
            });
        });
    }
}
