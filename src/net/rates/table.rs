//! Buckets by key, bounded in number.
//!
//! A key is remembered until its buckets are full again, when forgetting it changes nothing.

use std::collections::VecDeque;
use std::time::Instant;

use ahash::AHashMap;

use crate::net::bucket::{Bucket, Rate};
use crate::sync::ShardedMutex;

/// Keys that one part of the table remembers; it has 16 parts, so that all of them take some 8 MiB. A key that is
/// forgotten early has its full rates again, which somebody with so many users or rooms has anyway.
const KEYS_PER_PART_MAX: usize = 4096;

/// Remembered keys looked at whenever a new one comes: more than one, so that they become fewer.
const SWEEP: usize = 4;

/// Buckets of `N` kinds for each key. Keys are hashes that nobody outside can choose.
#[derive(Debug)]
pub(super) struct RateTable<const N: usize> {
    /// `None`: there is no limit of this kind.
    rates: [Option<Rate>; N],
    parts: ShardedMutex<Part<N>>,
}

#[derive(Debug, Default)]
struct Part<const N: usize> {
    buckets: AHashMap<u64, [Bucket; N]>,
    /// Every key once; those to be looked at first in front.
    order: VecDeque<u64>,
}

/// The buckets of one key.
pub(super) struct Buckets<'a, const N: usize> {
    rates: &'a [Option<Rate>; N],
    buckets: &'a mut [Bucket; N],
    now: Instant,
}

impl<const N: usize> RateTable<N> {
    pub(super) fn new(rates: [Option<Rate>; N]) -> Self {
        Self { rates, parts: ShardedMutex::default() }
    }

    /// Works on the buckets of a key; `None` when nothing is limited.
    pub(super) fn with<R>(
        &self,
        key: u64,
        now: Instant,
        work: impl FnOnce(&mut Buckets<'_, N>) -> R,
    ) -> Option<R> {
        if self.rates.iter().all(Option::is_none) {
            return None;
        }
        let mut part = self.parts.of(key);
        if !part.buckets.contains_key(&key) {
            part.sweep(now);
            part.order.push_back(key);
        }
        let buckets = part.buckets.entry(key).or_insert_with(|| [Bucket::full(now); N]);
        Some(work(&mut Buckets { rates: &self.rates, buckets, now }))
    }

    /// Number of keys that are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.parts.each(|part| part.buckets.len()).sum()
    }
}

impl<const N: usize> Part<N> {
    /// Forgets some keys whose buckets are full, and the oldest when there are too many.
    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEEP {
            let Some(key) = self.order.pop_front() else { return };
            let is_too_long = self.order.len() >= KEYS_PER_PART_MAX - 1;
            let is_full = |buckets: &[Bucket; N]| buckets.iter().all(|bucket| bucket.is_full(now));
            if is_too_long || self.buckets.get(&key).is_none_or(is_full) {
                self.buckets.remove(&key);
            } else {
                self.order.push_back(key);
            }
        }
        debug_assert_eq!(self.order.len(), self.buckets.len(), "every key is looked at some time");
    }
}

impl<const N: usize> Buckets<'_, N> {
    /// Takes tokens of a kind; false when there are none.
    pub(super) fn take(&mut self, kind: usize, tokens: u64) -> bool {
        self.rates[kind].is_none_or(|rate| self.buckets[kind].take_many(rate, tokens, self.now))
    }

    /// True when there are tokens of a kind.
    pub(super) fn has(&self, kind: usize) -> bool {
        let mut bucket = self.buckets[kind];
        self.rates[kind].is_none_or(|rate| bucket.take(rate, self.now))
    }

    /// Puts tokens of a kind back.
    pub(super) fn give_back(&mut self, kind: usize, tokens: u64) {
        if let Some(rate) = self.rates[kind] {
            self.buckets[kind].give_back(rate, tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn table() -> RateTable<2> {
        RateTable::new([Some(Rate::new(2, SECOND, SECOND)), None])
    }

    fn takes(table: &RateTable<2>, key: u64, now: Instant) -> bool {
        table.with(key, now, |buckets| buckets.take(0, 1)).unwrap()
    }

    #[test]
    fn each_key_has_buckets_of_its_own() {
        let (table, now) = (table(), Instant::now());
        assert_eq!([1, 1, 1, 2].map(|key| takes(&table, key, now)), [true, true, false, true]);
        table.with(1, now, |buckets| {
            assert!(!buckets.has(0) && buckets.take(1, 1000), "the second kind has no limit");
            buckets.give_back(0, 1);
            assert!(buckets.has(0) && buckets.has(0), "to ask takes nothing");
        });
        assert!(takes(&table, 1, now) && !takes(&table, 1, now));
        assert!(takes(&table, 1, now + SECOND / 2));
        assert_eq!(RateTable::new([None, None]).with(1, now, |_| ()), None);
    }

    #[test]
    fn keys_are_forgotten_when_their_buckets_are_full() {
        let (table, now) = (table(), Instant::now());
        (0..10_000).for_each(|key| assert!(takes(&table, key, now)));
        assert_eq!(table.len(), 10_000);
        (10_000..20_000).for_each(|key| assert!(takes(&table, key, now + SECOND)));
        assert!(table.len() < 11_000, "{}", table.len());
        (0..10_000).for_each(|key| assert!(takes(&table, key % 100, now + 10_000 * key as u32 * SECOND)));
        assert!(table.len() < 11_000, "{}", table.len());
    }

    #[test]
    fn the_table_is_bounded_whoever_comes() {
        let (table, now) = (table(), Instant::now());
        (0..200_000).for_each(|key| assert!(takes(&table, key, now)));
        assert_eq!(table.len(), 16 * KEYS_PER_PART_MAX);
    }
}
