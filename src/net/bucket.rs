//! A token bucket that is one instant.

use std::time::{Duration, Instant};

/// A rate with the burst that it allows after a pause.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// Tokens that come back in each period.
    tokens: u64,
    period: Duration,
    /// Time in which an empty bucket is full again.
    burst: Duration,
}

impl Rate {
    /// So many tokens in each `period`, and as many at once as come back within `burst`.
    pub(super) fn new(tokens: u64, period: Duration, burst: Duration) -> Self {
        debug_assert!(tokens > 0 && !burst.is_zero(), "a rate of 0 would let nothing pass");
        let rate = Self { tokens: tokens.max(1), period, burst };
        Self { burst: burst.max(rate.time_of(1)), ..rate }
    }

    /// Time in which so many tokens come back.
    fn time_of(self, tokens: u64) -> Duration {
        let nanos = self.period.as_nanos() * u128::from(tokens) / u128::from(self.tokens);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A bucket of tokens, told by the moment at which it is full again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes one token; false when there is none.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.take_many(rate, 1, now)
    }

    /// Takes tokens; false when there is none. One is enough, and the bucket then owes the others: so nothing is
    /// too large to pass.
    pub(super) fn take_many(&mut self, rate: Rate, tokens: u64, now: Instant) -> bool {
        let full_at = self.full_at.max(now);
        let is_there = (full_at + rate.time_of(1)).saturating_duration_since(now) <= rate.burst;
        if is_there {
            self.full_at = full_at + rate.time_of(tokens);
        }
        is_there
    }

    /// Puts tokens back that were taken and not used.
    pub(super) fn give_back(&mut self, rate: Rate, tokens: u64) {
        self.full_at = self.full_at.checked_sub(rate.time_of(tokens)).unwrap_or(self.full_at);
    }

    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_then_an_even_flow() {
        let start = Instant::now();
        let rate = Rate::new(10, SECOND, 2 * SECOND);
        let mut bucket = Bucket::full(start);
        let taken = |bucket: &mut Bucket, now| (0..100).take_while(|_| bucket.take(rate, now)).count();
        assert_eq!(taken(&mut bucket, start), 20);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(100)), 1);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(400)), 3);
        assert!(!bucket.is_full(start + Duration::from_millis(2_399)));
        assert!(bucket.is_full(start + Duration::from_millis(2_400)));
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(3_600)), 20);
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_and_is_owed() {
        let start = Instant::now();
        let rate = Rate::new(1 << 20, SECOND, SECOND);
        let mut bucket = Bucket::full(start);
        assert!(bucket.take_many(rate, 3 << 20, start));
        assert!(!bucket.take(rate, start + SECOND) && !bucket.take(rate, start + 2 * SECOND));
        assert!(bucket.take(rate, start + 3 * SECOND));
        bucket.give_back(rate, 5 << 20);
        assert!(bucket.is_full(start));
    }

    #[test]
    fn a_refused_token_costs_nothing() {
        let start = Instant::now();
        let rate = Rate::new(1, SECOND, SECOND);
        let mut bucket = Bucket::full(start);
        assert!(bucket.take(rate, start));
        assert!((0..1000).all(|_| !bucket.take(rate, start)));
        assert!(bucket.take(rate, start + Duration::from_secs(1)));
    }
}
