//! A token bucket that is one instant.

use std::time::{Duration, Instant};

/// A rate with the burst that it allows after a pause.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// Time in which one token comes back.
    token: Duration,
    /// Time in which an empty bucket is full again.
    burst: Duration,
}

impl Rate {
    /// `per_second` tokens a second, and as many at once as come back within `burst`.
    pub(super) fn new(per_second: u32, burst: Duration) -> Self {
        debug_assert!(per_second > 0 && !burst.is_zero(), "a rate of 0 would let nothing pass");
        let token = Duration::from_secs(1) / per_second.max(1);
        Self { token, burst: burst.max(token) }
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
        let full_at = self.full_at.max(now) + rate.token;
        let is_there = full_at.saturating_duration_since(now) <= rate.burst;
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }

    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_an_even_flow() {
        let start = Instant::now();
        let rate = Rate::new(10, Duration::from_secs(2));
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
    fn a_refused_token_costs_nothing() {
        let start = Instant::now();
        let rate = Rate::new(1, Duration::from_secs(1));
        let mut bucket = Bucket::full(start);
        assert!(bucket.take(rate, start));
        assert!((0..1000).all(|_| !bucket.take(rate, start)));
        assert!(bucket.take(rate, start + Duration::from_secs(1)));
    }
}
