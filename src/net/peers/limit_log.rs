//! Two log lines for a limit that is reached: one at the first refusal, one when it is over.

use std::time::{Duration, Instant};

/// Time without a refusal after which the limit counts as left, so that a server at its limit does not log
/// with every client that comes and goes.
const QUIET: Duration = Duration::from_secs(10);

/// A line to be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum LimitLine {
    /// The limit is reached; the first refusal.
    Reached,
    /// Nobody has been refused for a while.
    Left {
        /// Refusals since [`LimitLine::Reached`].
        refused: u64,
        /// Time from the first refusal to the last.
        lasted: Duration,
    },
}

/// Remembers whether a limit has been reached, so that each change is logged once.
#[derive(Debug, Default)]
pub(in crate::net) struct LimitLog {
    reached: Option<Reached>,
}

#[derive(Debug)]
struct Reached {
    first: Instant,
    last: Instant,
    refused: u64,
}

impl LimitLog {
    /// Somebody was refused. Tells as well when an earlier time at the limit was over meanwhile, which
    /// nobody asked about.
    pub(in crate::net) fn refused(&mut self, now: Instant) -> [Option<LimitLine>; 2] {
        let over = self.check(now);
        let reached = match &mut self.reached {
            Some(reached) => {
                reached.last = reached.last.max(now);
                reached.refused += 1;
                None
            }
            none => {
                *none = Some(Reached { first: now, last: now, refused: 1 });
                Some(LimitLine::Reached)
            }
        };
        [over, reached]
    }

    /// Looks whether the limit has been left.
    pub(in crate::net) fn check(&mut self, now: Instant) -> Option<LimitLine> {
        let is_over = self.due().is_some_and(|due| due <= now);
        let reached = self.reached.take_if(|_| is_over)?;
        let lasted = reached.last.saturating_duration_since(reached.first);
        Some(LimitLine::Left { refused: reached.refused, lasted })
    }

    /// The moment at which to check next, if nobody is refused before.
    pub(in crate::net) fn due(&self) -> Option<Instant> {
        self.reached.as_ref().map(|reached| reached.last + QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_two_lines() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut log = LimitLog::default();
        assert_eq!((log.check(start), log.due()), (None, None));
        assert_eq!(log.refused(start), [None, Some(LimitLine::Reached)]);
        for ms in 1..=30_000 {
            assert_eq!(log.refused(at(ms)), [None, None]);
            assert_eq!(log.check(at(ms)), None);
        }
        assert_eq!(log.due(), Some(at(40_000)));
        assert_eq!(log.check(at(39_999)), None);
        let left = LimitLine::Left { refused: 30_001, lasted: Duration::from_secs(30) };
        assert_eq!(log.check(at(40_000)), Some(left));
        assert_eq!((log.check(at(40_001)), log.due()), (None, None));
        assert_eq!(log.refused(at(50_000)), [None, Some(LimitLine::Reached)]);
    }

    #[test]
    fn an_end_that_nobody_noticed_is_told_at_the_next_refusal() {
        let start = Instant::now();
        let mut log = LimitLog::default();
        log.refused(start);
        let left = LimitLine::Left { refused: 1, lasted: Duration::ZERO };
        assert_eq!(log.refused(start + 2 * QUIET), [Some(left), Some(LimitLine::Reached)]);
    }

    #[test]
    fn a_clock_that_seems_to_go_back_does_no_harm() {
        let start = Instant::now() + Duration::from_secs(60);
        let mut log = LimitLog::default();
        log.refused(start);
        let earlier = start - Duration::from_secs(1);
        assert_eq!(log.refused(earlier), [None, None]);
        assert_eq!(log.check(earlier), None);
        assert_eq!(log.due(), Some(start + QUIET));
    }
}
