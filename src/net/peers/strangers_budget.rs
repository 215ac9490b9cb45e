//! The bytes that the server holds for strangers: HTTP heads and bodies, frames before `connect`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntGauge;

/// Bytes with which a stranger is a small one: an ordinary head and an ordinary `connect`.
const SMALL_BYTES: usize = 4 * 1024;

/// A bound on the bytes of all strangers together. Its last quarter is for those who need little, so
/// that a few who want much cannot keep everybody else out.
#[derive(Debug)]
pub(in crate::net) struct StrangersBudget {
    bytes_max: usize,
    held: AtomicUsize,
    gauge: IntGauge,
}

impl StrangersBudget {
    /// A budget of so many bytes; `gauge` shows how many are in use.
    pub(in crate::net) fn new(bytes_max: usize, gauge: IntGauge) -> Arc<Self> {
        debug_assert!(bytes_max >= SMALL_BYTES, "not even one stranger could come");
        Arc::new(Self { bytes_max, held: AtomicUsize::new(0), gauge })
    }

    /// Takes bytes for one stranger; `None` when there are not so many.
    pub(in crate::net) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<StrangerBytes> {
        let mut reserved = StrangerBytes { budget: self.clone(), bytes: 0 };
        reserved.resize(bytes).then_some(reserved)
    }

    /// Takes `more` bytes for a stranger that then has `total`.
    fn take(&self, more: usize, total: usize) -> bool {
        let most = if total <= SMALL_BYTES { self.bytes_max } else { self.bytes_max / 4 * 3 };
        let within = |held: usize| held.checked_add(more).filter(|held| *held <= most);
        let is_taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok();
        if is_taken {
            self.gauge.add(signed(more));
        }
        is_taken
    }

    fn give_back(&self, bytes: usize) {
        let before = self.held.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "bytes are given back once");
        self.gauge.sub(signed(bytes));
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The bytes of one stranger; given back when it is dropped.
#[derive(Debug)]
pub(in crate::net) struct StrangerBytes {
    budget: Arc<StrangersBudget>,
    bytes: usize,
}

impl StrangerBytes {
    /// Holds `bytes` from now on. False when there are not so many: then nothing has changed. Less is
    /// always possible.
    pub(in crate::net) fn resize(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) if !self.budget.take(more, bytes) => return false,
            Some(_) => {}
            None => self.budget.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for StrangerBytes {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const KIB: usize = 1024;

    fn budget(bytes: usize) -> Arc<StrangersBudget> {
        StrangersBudget::new(bytes, IntGauge::new("held", "bytes").unwrap())
    }

    fn held(budget: &StrangersBudget) -> usize {
        let held = budget.held.load(Ordering::Relaxed);
        assert_eq!(budget.gauge.get(), signed(held));
        held
    }

    #[test]
    fn bytes_are_taken_and_given_back() {
        let budget = budget(64 * KIB);
        let mut one = budget.reserve(KIB).unwrap();
        let two = budget.reserve(0).unwrap();
        assert!(one.resize(32 * KIB));
        assert_eq!(held(&budget), 32 * KIB);
        assert!(!one.resize(60 * KIB) && !one.resize(usize::MAX));
        assert_eq!(held(&budget), 32 * KIB, "a refusal changes nothing");
        assert!(one.resize(3) && one.resize(3));
        assert_eq!(held(&budget), 3);
        drop((one, two));
        assert_eq!(held(&budget), 0);
        assert!(budget.reserve(usize::MAX).is_none());
        assert_eq!(held(&budget), 0);
    }

    #[test]
    fn who_needs_little_is_not_kept_out_by_who_wants_much() {
        let budget = budget(64 * KIB);
        let large: Vec<_> = std::iter::from_fn(|| budget.reserve(16 * KIB)).collect();
        assert_eq!(large.len(), 3);
        let small: Vec<_> = std::iter::from_fn(|| budget.reserve(SMALL_BYTES)).collect();
        assert_eq!(small.len(), 4);
        assert!(budget.reserve(1).is_none());
        drop(large);
        assert!(budget.reserve(16 * KIB).is_some());
    }

    #[test]
    fn many_threads_never_hold_more_than_there_is() {
        let budget = budget(64 * KIB);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for bytes in 1..5_000 {
                        let mut reserved = budget.reserve(bytes);
                        assert!(budget.held.load(Ordering::Relaxed) <= 64 * KIB);
                        if let Some(reserved) = &mut reserved {
                            reserved.resize(bytes * 4);
                        }
                    }
                });
            }
        });
        assert_eq!(held(&budget), 0);
    }
}
