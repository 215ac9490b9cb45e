//! The moment by which the request that a thread works for is to be answered.
//!
//! A request may ask the database several times, and may have waited before its first question. All of that has one
//! bound, which is noted here, for the code in between knows nothing of it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

thread_local! {
    static ANSWER_BY: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Bounds what the calling thread waits for, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Deadline {
    before: Option<Instant>,
    /// It is of one thread.
    _here: PhantomData<*const ()>,
}

impl Deadline {
    /// From now on, the calling thread works for a request that is to be answered by then.
    pub(crate) fn set(answer_by: Instant) -> Self {
        Self { before: ANSWER_BY.replace(Some(answer_by)), _here: PhantomData }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        ANSWER_BY.set(self.before);
    }
}

/// The end of an operation that begins now and may take as long as `longest`; earlier when the request that the thread
/// works for is to be answered earlier.
pub(crate) fn after(longest: Duration) -> Instant {
    let end = Instant::now() + longest;
    ANSWER_BY.get().map_or(end, |answer_by| answer_by.min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_request_is_that_of_all_it_asks() {
        let long = Duration::from_secs(60);
        let is_whole = || after(long) > Instant::now() + long / 2;
        assert!(is_whole());
        {
            let now = Instant::now();
            let _request = Deadline::set(now);
            assert_eq!(after(long), now);
            let elsewhere = std::thread::scope(|scope| scope.spawn(is_whole).join());
            assert!(elsewhere.unwrap(), "another thread works for another request");
        }
        assert!(is_whole(), "the next request is another one");
        let _patient = Deadline::set(Instant::now() + 2 * long);
        assert!(after(long) <= Instant::now() + long, "it makes nothing longer");
    }
}
