//! When which parked connection is to be looked at: one entry a connection, moved only when an earlier moment
//! is wanted or its own has come, so a busy connection costs nothing here.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::ids::ConnectionId;
use crate::sync::{Condvar, Mutex, lock, wait, wait_timeout};

/// The moments, in order. Bounded by the number of connections.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    listed: Mutex<Listed>,
    /// Signalled when the first moment is another, and at the stop.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Listed {
    moments: BTreeSet<(Instant, ConnectionId)>,
    stopped: bool,
}

impl Deadlines {
    /// Lists a connection, which was listed for `before` if at all.
    pub(super) fn list(&self, id: ConnectionId, before: Option<Instant>, at: Instant) {
        let mut listed = lock(&self.listed);
        if let Some(before) = before {
            listed.moments.remove(&(before, id));
        }
        let is_new = listed.moments.insert((at, id));
        debug_assert!(is_new, "a connection is listed once");
        let is_first = listed.moments.first() == Some(&(at, id));
        drop(listed);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Takes a connection out that is listed for `at`, unless its moment was told meanwhile.
    pub(super) fn strike(&self, id: ConnectionId, at: Instant) {
        lock(&self.listed).moments.remove(&(at, id));
    }

    /// Waits for the next moment and takes its connection out; `None` after [`stop`](Self::stop).
    pub(super) fn next(&self) -> Option<ConnectionId> {
        let mut listed = lock(&self.listed);
        while !listed.stopped {
            let Some(&(at, id)) = listed.moments.first() else {
                listed = wait(&self.changed, listed);
                continue;
            };
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                listed.moments.pop_first();
                return Some(id);
            }
            listed = wait_timeout(&self.changed, listed, left);
        }
        None
    }

    /// Ends every wait from now on.
    pub(super) fn stop(&self) {
        lock(&self.listed).stopped = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earliest_comes_first() {
        let deadlines = Deadlines::default();
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_millis(1), now + Duration::from_secs(3600));
        deadlines.list(ConnectionId(1), None, later);
        deadlines.list(ConnectionId(2), None, later);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| deadlines.next());
            deadlines.list(ConnectionId(2), Some(later), soon);
            assert_eq!(waiting.join().unwrap(), Some(ConnectionId(2)), "an earlier one ends the wait");
            let waiting = scope.spawn(|| deadlines.next());
            deadlines.strike(ConnectionId(1), later);
            deadlines.stop();
            assert_eq!(waiting.join().unwrap(), None);
        });
    }
}
