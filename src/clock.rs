//! The time of day, in the one form that is stored.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 UTC. A clock set before 1970 reads as 0.
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Whole seconds since 1970 UTC, as tokens count them.
pub fn unix_seconds() -> i64 {
    unix_ms() / 1000
}
