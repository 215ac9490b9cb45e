//! The times of a commit, which travel with its publications to their rooms.

use std::time::Instant;

/// The times of the commit that publications come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitTimes {
    /// Not after its transaction began: what was read from the log later than this may hold its messages, and
    /// what was read earlier cannot.
    pub(super) begun: Instant,
    /// It was durable.
    pub(super) ended: Instant,
}

impl CommitTimes {
    /// Those of a publication that is not stored.
    pub(super) fn of_no_commit() -> Self {
        let now = Instant::now();
        Self { begun: now, ended: now }
    }
}
