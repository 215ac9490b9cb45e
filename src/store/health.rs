//! The health of the database, as the last operations saw it.
//!
//! Logs once per change of state and keeps the `store_up` metric. Reads and writes are watched
//! apart, because a full disk still answers reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::metrics::Metrics;
use crate::sync::{Mutex, lock};

/// Shortest time between two trials of a store that is down, however often its health is asked for.
const TRIAL_PAUSE: Duration = Duration::from_millis(500);

/// The state of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The last operation worked.
    Up,
    /// The last operation failed for a reason that lies with the database.
    Down {
        /// Time of the first failure, milliseconds since 1970 UTC.
        since_ms: i64,
        /// The error text of the database.
        reason: String,
    },
}

/// The kind of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// History, rooms, lists.
    Read,
    /// Commits and everything else that changes rows.
    Write,
}

#[derive(Debug, Default)]
struct Failures {
    read: Option<Failure>,
    write: Option<Failure>,
    tried_at: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Failure {
    since_ms: i64,
    reason: String,
}

/// Collects the outcome of operations.
#[derive(Debug)]
pub(super) struct Monitor {
    /// Some side is down; lets the usual success skip the lock.
    any_down: AtomicBool,
    failures: Mutex<Failures>,
    metrics: Arc<Metrics>,
}

impl Monitor {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.store_up.set(1);
        Self { any_down: AtomicBool::new(false), failures: Mutex::default(), metrics }
    }

    /// An operation worked.
    pub(super) fn succeeded(&self, side: Side) {
        if !self.any_down.load(Ordering::Acquire) {
            return;
        }
        let healed = {
            let mut failures = lock(&self.failures);
            let healed = failures.side(side).take().is_some();
            self.publish(&failures);
            healed
        };
        // What is logged comes after what is noted: no logger of an embedding program can keep it from being.
        if healed {
            tracing::info!(?side, "the database works again");
        }
    }

    /// An operation failed through no fault of its values.
    pub(super) fn failed(&self, side: Side, reason: &str) {
        let is_new = {
            let mut failures = lock(&self.failures);
            let slot = failures.side(side);
            let since_ms = slot.as_ref().map(|failure| failure.since_ms);
            *slot = Some(Failure {
                since_ms: since_ms.unwrap_or_else(clock::unix_ms),
                reason: reason.to_owned(),
            });
            self.publish(&failures);
            since_ms.is_none()
        };
        if is_new {
            tracing::error!(?side, reason, "the database does not work");
        }
    }

    /// True while the last operation of that side failed.
    pub(super) fn is_down(&self, side: Side) -> bool {
        self.any_down.load(Ordering::Acquire) && lock(&self.failures).side(side).is_some()
    }

    /// True when some side is down and nobody has tried it for a while; the caller then should.
    pub(super) fn wants_trial(&self) -> bool {
        if !self.any_down.load(Ordering::Acquire) {
            return false;
        }
        let mut failures = lock(&self.failures);
        let now = Instant::now();
        let due = failures.tried_at.is_none_or(|at| now.duration_since(at) >= TRIAL_PAUSE);
        if due {
            failures.tried_at = Some(now);
        }
        due
    }

    pub(super) fn health(&self) -> Health {
        let failures = lock(&self.failures);
        match failures.write.as_ref().or(failures.read.as_ref()) {
            None => Health::Up,
            Some(failure) => Health::Down { since_ms: failure.since_ms, reason: failure.reason.clone() },
        }
    }

    fn publish(&self, failures: &Failures) {
        let down = failures.read.is_some() || failures.write.is_some();
        self.any_down.store(down, Ordering::Release);
        self.metrics.store_up.set(i64::from(!down));
    }
}

impl Failures {
    fn side(&mut self, side: Side) -> &mut Option<Failure> {
        match side {
            Side::Read => &mut self.read,
            Side::Write => &mut self.write,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A logger that fails as badly as one can.
    struct Panics;

    impl tracing::Subscriber for Panics {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            panic!("on purpose");
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn health_is_noted_before_it_is_logged() {
        let metrics = Arc::new(Metrics::new());
        let monitor = Monitor::new(metrics.clone());
        let logged = |work: &dyn Fn()| {
            let work = std::panic::AssertUnwindSafe(work);
            let outcome = std::panic::catch_unwind(|| tracing::subscriber::with_default(Panics, work));
            assert!(outcome.is_err(), "a line was logged");
        };
        logged(&|| monitor.failed(Side::Write, "full"));
        assert!(monitor.is_down(Side::Write) && metrics.store_up.get() == 0);
        logged(&|| monitor.succeeded(Side::Write));
        assert_eq!((monitor.health(), metrics.store_up.get()), (Health::Up, 1));
    }

    #[test]
    fn each_side_heals_by_its_own_success() {
        let metrics = Arc::new(Metrics::new());
        let monitor = Monitor::new(metrics.clone());
        assert_eq!(monitor.health(), Health::Up);
        monitor.failed(Side::Write, "full");
        monitor.succeeded(Side::Read);
        assert!(matches!(monitor.health(), Health::Down { reason, .. } if reason == "full"));
        assert_eq!(metrics.store_up.get(), 0);
        assert!(monitor.is_down(Side::Write) && !monitor.is_down(Side::Read));
        monitor.succeeded(Side::Write);
        assert_eq!(monitor.health(), Health::Up);
        assert_eq!(metrics.store_up.get(), 1);
    }
}
