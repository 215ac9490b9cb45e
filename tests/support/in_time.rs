//! The bound of an answer, whatever the database does.

use std::time::{Duration, Instant};

/// SDKs give up after 5 s.
pub const IN_TIME: Duration = Duration::from_secs(4);

/// Fails when `work` takes longer than [`IN_TIME`].
#[track_caller]
pub fn in_time<T>(work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    assert!(began.elapsed() < IN_TIME, "answered after {:?}", began.elapsed());
    done
}
