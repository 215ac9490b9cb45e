//! A fan-out under way: what is sent, to whom it was sent already, and the slice with the pool.

use std::sync::Arc;
use std::time::Instant;

use super::backlog::Batch;
use crate::engine::delivery::choice::Choice;
use crate::engine::delivery::parallel::PoolSlice;
use crate::engine::members::Members;

/// Publications on their way to the members, slice by slice.
#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) batch: Batch,
    /// Members before this index are served.
    pub(super) next: usize,
    pub(super) choice: Choice,
    pub(super) began: Instant,
    /// A slice that the pool serves.
    pub(super) pool_slice: Option<Arc<PoolSlice>>,
}

impl FanOut {
    pub(super) fn new(batch: Batch, choice: Choice) -> Self {
        Self { batch, next: 0, choice, began: Instant::now(), pool_slice: None }
    }

    pub(super) fn assert_consistent(&self, members: &Members) {
        let is_over = self.next >= members.len() && self.pool_slice.is_none();
        debug_assert!(!is_over, "a fan-out that is over goes on");
        let end = self.pool_slice.as_ref().map_or(self.next, |slice| slice.end());
        debug_assert!(self.next <= end && end <= members.len(), "a slice beyond the members");
    }
}
