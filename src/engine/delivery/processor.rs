//! Where and when the pool's threads run: behind everybody else, and each on a processor of its own.
//!
//! Outside Linux the scheduler is left alone.

use std::sync::atomic::AtomicU64;

/// Niceness of the pool, behind the threads that read, commit and serve small rooms: with 10 it gets a
/// tenth of a core that they use up (`sched(7)`, "The nice value"), and all that they leave.
#[cfg(target_os = "linux")]
pub(super) const NICE: i32 = 10;

/// Lowers the priority of the calling thread.
#[cfg(target_os = "linux")]
pub(super) fn step_back() {
    // On Linux the value is the calling thread's own.
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "large rooms compete with small ones for the processor");
    }
}

/// Elsewhere the value is that of the whole process.
#[cfg(not(target_os = "linux"))]
pub(super) fn step_back() {}

/// Takes the processor the calling thread runs on, or, when that one is taken, moves to another. `taken` has a
/// bit for each processor, those beyond the 64th share theirs.
///
/// The kernel likes to wake several threads on the same processor, and parts them at its next tick, up to 4 ms
/// later: as long as 500 listeners take.
#[cfg(target_os = "linux")]
pub(super) fn find_free(taken: &AtomicU64) {
    let here = rustix::thread::sched_getcpu();
    if !take(taken, here)
        && let Some(other) = leave(here)
    {
        take(taken, other);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn find_free(_: &AtomicU64) {}

/// True for the first thread there.
#[cfg(target_os = "linux")]
fn take(taken: &AtomicU64, processor: usize) -> bool {
    let bit = 1u64 << (processor % 64);
    taken.fetch_or(bit, std::sync::atomic::Ordering::Relaxed) & bit == 0
}

/// Moves the calling thread off a processor and gives the one it is on then; `None`: it may use no other.
/// It may come back at once, when the scheduler says so.
#[cfg(target_os = "linux")]
fn leave(processor: usize) -> Option<usize> {
    use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};
    let all = sched_getaffinity(None).ok()?;
    let mut others = all;
    others.unset(processor);
    // Without another one this fails.
    sched_setaffinity(None, &others).ok()?;
    let other = sched_getcpu();
    if let Err(error) = sched_setaffinity(None, &all) {
        tracing::warn!(%error, processor, "a thread for large rooms cannot go back to this processor");
    }
    Some(other)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

    use super::*;

    #[test]
    fn a_thread_leaves_a_processor_and_may_come_back() {
        let all = sched_getaffinity(None).unwrap();
        let here = sched_getcpu();
        match leave(here) {
            Some(other) => assert_ne!(other, here),
            None => assert_eq!(all.count(), 1, "there are others"),
        }
        assert_eq!(sched_getaffinity(None).unwrap(), all);
    }

    #[test]
    fn a_thread_that_may_use_no_other_processor_stays() {
        let mut only = CpuSet::new();
        only.set(sched_getcpu());
        sched_setaffinity(None, &only).unwrap();
        assert_eq!(leave(sched_getcpu()), None);
        assert_eq!(sched_getaffinity(None).unwrap(), only);
    }

    #[test]
    fn two_threads_do_not_begin_on_the_same_processor() {
        let taken = AtomicU64::new(0);
        assert!(take(&taken, 1));
        assert!(!take(&taken, 1));
        assert!(take(&taken, 0));
        assert!(take(&taken, 63));
        assert!(!take(&taken, 64), "shares the bit of 0");
    }
}
