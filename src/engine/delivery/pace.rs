//! What a room's fan-outs cost and how often they come, measured while they happen.

use std::time::{Duration, Instant};

/// Assumed cost of one listener before anything was measured: one `send` of a small frame
/// takes 3 to 7 us (docs/decisions.md, "The system call is the cost").
const COST_AT_FIRST: Duration = Duration::from_micros(5);

/// Bounds of a measured cost. Outliers are preemption or clock granularity.
const COST_MIN: Duration = Duration::from_nanos(500);
const COST_MAX: Duration = Duration::from_micros(50);

/// Listeners after which a new measurement weighs as much as all that came before.
const LISTENERS_REMEMBERED: f64 = 256.0;

/// Time after which a publication has lost most of its weight in the rate.
const RATE_SPAN: Duration = Duration::from_secs(10);

/// The time one thread takes for one listener of a room, lately.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Cost(Duration);

impl Default for Cost {
    fn default() -> Self {
        Self(COST_AT_FIRST)
    }
}

impl Cost {
    /// Takes in that `listeners` were served with `work`, the processor time of all threads together.
    pub(in crate::engine) fn observe(&mut self, work: Duration, listeners: usize) {
        let Ok(count) = u32::try_from(listeners) else { return };
        if count == 0 {
            return;
        }
        let each = (work / count).clamp(COST_MIN, COST_MAX);
        let weight = f64::from(count) / (f64::from(count) + LISTENERS_REMEMBERED);
        self.0 = self.0.mul_f64(1.0 - weight) + each.mul_f64(weight);
        debug_assert!((COST_MIN..=COST_MAX).contains(&self.0), "a cost outside its bounds: {:?}", self.0);
    }

    /// Expected time of one thread for this many listeners.
    pub(in crate::engine) fn of(self, listeners: usize) -> Duration {
        self.0.mul_f64(listeners as f64)
    }
}

/// The measurements of one room that its strategy depends on.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Pace {
    pub(in crate::engine) cost: Cost,
    pub(in crate::engine) rate: Rate,
    pub(in crate::engine) cooldown: Cooldown,
}

impl Pace {
    pub(in crate::engine) fn new(now: Instant) -> Self {
        Self { cost: Cost::default(), rate: Rate::new(now), cooldown: Cooldown::new(now) }
    }
}

/// Publications per second: a mean in which older ones weigh less and less.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Rate {
    per_second: f64,
    at: Instant,
}

impl Rate {
    pub(in crate::engine) fn new(now: Instant) -> Self {
        Self { per_second: 0.0, at: now }
    }

    /// Counts one publication.
    pub(in crate::engine) fn count(&mut self, now: Instant) {
        self.per_second = self.at(now) + RATE_SPAN.as_secs_f64().recip();
        self.at = self.at.max(now);
        debug_assert!(self.per_second.is_finite() && self.per_second > 0.0, "{self:?}");
    }

    /// The rate at this time.
    pub(in crate::engine) fn at(self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at);
        if age.is_zero() {
            return self.per_second;
        }
        self.per_second * (-age.as_secs_f64() / RATE_SPAN.as_secs_f64()).exp()
    }
}

/// The pause of a room after a fan-out: as long as that took.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Cooldown {
    until: Instant,
}

impl Cooldown {
    pub(in crate::engine) fn new(now: Instant) -> Self {
        Self { until: now }
    }

    /// Takes in a fan-out.
    pub(in crate::engine) fn observe(&mut self, began: Instant, ended: Instant) {
        self.until = ended + ended.saturating_duration_since(began);
    }

    /// True for a room that sends less than half of the time.
    pub(in crate::engine) fn is_over(self, now: Instant) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_follows_measurements_and_forgets_an_outlier() {
        let mut cost = Cost::default();
        assert_eq!(cost.of(1000), Duration::from_millis(5));
        for _ in 0..200 {
            cost.observe(Duration::from_micros(20), 10);
        }
        let approached = cost.of(1000);
        assert!(
            (Duration::from_micros(1990)..Duration::from_micros(2100)).contains(&approached),
            "{approached:?}"
        );
        cost.observe(Duration::from_millis(100), 10);
        assert!(cost.of(10) < Duration::from_micros(50));
        cost.observe(Duration::from_secs(1), 0);
    }

    #[test]
    fn the_rate_approaches_what_comes_and_decays_in_silence() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for tenth in 1..=1000 {
            rate.count(start + Duration::from_millis(100) * tenth);
        }
        let end = start + Duration::from_secs(100);
        assert!((9.5..10.5).contains(&rate.at(end)), "{rate:?}");
        assert!(rate.at(end + Duration::from_secs(60)) < 0.1);
        rate.count(start);
        assert!(rate.at(end) > 9.5, "an earlier clock does no harm");
    }

    #[test]
    fn a_cooldown_lasts_as_long_as_the_fan_out_before_it() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut cooldown = Cooldown::new(start);
        assert!(cooldown.is_over(start), "it has sent nothing");
        cooldown.observe(at(10), at(60));
        assert!(!cooldown.is_over(at(109)));
        assert!(cooldown.is_over(at(110)));
        cooldown.observe(at(110), at(111));
        assert!(cooldown.is_over(at(112)), "only the last one counts");
    }
}
