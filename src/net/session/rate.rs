//! The rate limit of the commands of one connection.

use std::time::Instant;

/// A bucket that holds one second's worth of commands and refills evenly.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: f64,
    allowance: f64,
    refilled_at: Instant,
}

impl RateLimit {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, allowance: per_second, refilled_at: now }
    }

    /// Takes one command out of the bucket; false when it is empty.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled_at).as_secs_f64();
        self.refilled_at = now;
        self.allowance = (self.allowance + elapsed * self.per_second).min(self.per_second);
        if self.allowance < 1.0 {
            return false;
        }
        self.allowance -= 1.0;
        debug_assert!((0.0..self.per_second).contains(&self.allowance), "the bucket neither owes nor spills");
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_of_one_second_then_an_even_flow() {
        let start = Instant::now();
        let mut rate = RateLimit::new(10, start);
        assert!((0..10).all(|_| rate.allows(start)));
        assert!(!rate.allows(start));
        let later = start + Duration::from_millis(100);
        assert!(rate.allows(later) && !rate.allows(later));
    }
}
