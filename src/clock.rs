//! The time of day, in the one form that is stored, and the time a thread was at work.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970 UTC. A clock set before 1970 reads as 0.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Processor time the calling thread has used; unlike the time on the wall it stands still while the thread
/// waits for a processor.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Whole seconds since 1970 UTC, as tokens count them.
pub(crate) fn unix_seconds() -> i64 {
    unix_ms() / 1000
}
