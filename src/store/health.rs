//! The health of the database, as the last operations saw it.
//!
//! Logs once per change of state and keeps the `store_up` metric. What fails apart is watched apart: reads, which
//! a full disk still answers, changes that are no messages, and each commit lane, whose connections may lead to
//! different servers. An operation that is not answered in time counts as a failure while it lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::limits::STORE_ANSWER_MAX;
use crate::metrics::Metrics;
use crate::store::error::Outage;
use crate::sync::{Mutex, lock};

/// Time that has to pass without a failure in part of the rooms or tables until a success counts: else each batch, and
/// each read beside a locked table, would be a change of state, and a line in the log.
const PARTIAL_FAILURE_LASTS: Duration = Duration::from_secs(5);

/// The same for an operation that hangs while others of its side end. It is seen again sooner.
const HANGING_LASTS: Duration = Duration::from_secs(1);

/// The state of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The last operation worked.
    Up,
    /// The last operation failed for a reason that lies with the database, or one hangs.
    Down {
        /// Time of the first failure, milliseconds since 1970 UTC.
        since_ms: i64,
        /// The error text of the database.
        reason: String,
    },
}

/// What is watched apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Commits of a lane; on SQLite everything else that changes rows, too.
    Lane(usize),
    /// On PostgreSQL what changes rows without being a message.
    Changes,
    /// History, rooms, lists.
    Reads,
}

/// The outcome of operations of one side.
#[derive(Debug)]
struct Watched {
    name: String,
    failure: Option<Failure>,
    /// When an operation last ended.
    ended_at: Instant,
}

#[derive(Debug, Clone)]
struct Failure {
    since_ms: i64,
    reason: String,
    /// Until then a success does not count.
    holds_until: Instant,
}

/// Operations that have begun.
#[derive(Debug, Default)]
struct InProgress {
    next: u64,
    operations: Vec<(u64, usize, Instant)>,
}

/// Collects the outcome of operations.
#[derive(Debug)]
pub(super) struct Monitor {
    /// Some side is down; lets the usual success skip most of the work.
    any_down: AtomicBool,
    /// Rises whenever some side goes down.
    outages: AtomicU64,
    watched: Mutex<Vec<Watched>>,
    in_progress: Mutex<InProgress>,
    metrics: Arc<Metrics>,
}

/// An operation in progress; over when it is dropped.
#[derive(Debug)]
pub(super) struct Operation {
    monitor: Arc<Monitor>,
    number: u64,
}

impl Drop for Operation {
    fn drop(&mut self) {
        lock(&self.monitor.in_progress).operations.retain(|(number, ..)| *number != self.number);
    }
}

impl Monitor {
    /// Watches reads and so many lanes; changes apart from them if `beside`.
    pub(super) fn new(metrics: Arc<Metrics>, lanes: usize, beside: bool) -> Self {
        let names =
            ["reads".to_owned(), "changes".to_owned()].into_iter().chain((0..lanes).map(|n| n.to_string()));
        let now = Instant::now();
        let watched: Vec<_> = names.map(|name| Watched { name, failure: None, ended_at: now }).collect();
        for side in watched.iter().filter(|side| beside || side.name != "changes") {
            metrics.store_up.with_label_values(&[&side.name]).set(1);
        }
        Self {
            any_down: AtomicBool::new(false),
            outages: AtomicU64::new(0),
            watched: Mutex::new(watched),
            in_progress: Mutex::default(),
            metrics,
        }
    }

    /// Notes that an operation begins.
    pub(super) fn begin(self: &Arc<Self>, side: Side) -> Operation {
        let mut in_progress = lock(&self.in_progress);
        let number = in_progress.next;
        in_progress.next += 1;
        in_progress.operations.push((number, side.index(), Instant::now()));
        Operation { monitor: self.clone(), number }
    }

    /// An operation worked.
    pub(super) fn succeeded(&self, side: Side) {
        let healed = {
            let mut watched = lock(&self.watched);
            let now = Instant::now();
            let this = &mut watched[side.index()];
            this.ended_at = now;
            let healed =
                this.failure.take_if(|failure| failure.holds_until <= now).map(|_| this.name.clone());
            if let Some(name) = &healed {
                self.metrics.store_up.with_label_values(&[name]).set(1);
                self.publish(&watched);
            }
            healed
        };
        // What is logged comes after what is noted: no logger of an embedding program can keep it from being.
        if let Some(side) = healed {
            tracing::info!(side, "the database works again");
        }
    }

    /// An operation failed through no fault of its values.
    pub(super) fn failed(&self, side: Side, reason: &str) {
        self.note_failure(side.index(), reason, Duration::ZERO);
    }

    /// An operation failed through no fault of its values, others of the side at the same time did not.
    pub(super) fn failed_in_part(&self, side: Side, reason: &str) {
        self.note_failure(side.index(), reason, PARTIAL_FAILURE_LASTS);
    }

    /// An operation that was no commit failed through no fault of its values.
    pub(super) fn failed_for(&self, side: Side, outage: &Outage) {
        match outage.is_partial {
            true => self.failed_in_part(side, &outage.reason),
            false => self.failed(side, &outage.reason),
        }
    }

    fn note_failure(&self, index: usize, reason: &str, lasts: Duration) {
        let fallen = {
            let mut watched = lock(&self.watched);
            let now = Instant::now();
            let this = &mut watched[index];
            this.ended_at = now;
            let since_ms = this.failure.as_ref().map(|failure| failure.since_ms);
            this.failure = Some(Failure {
                since_ms: since_ms.unwrap_or_else(clock::unix_ms),
                reason: reason.to_owned(),
                holds_until: now + lasts,
            });
            let fallen = since_ms.is_none().then(|| this.name.clone());
            if let Some(name) = &fallen {
                self.metrics.store_up.with_label_values(&[name]).set(0);
                self.outages.fetch_add(1, Ordering::AcqRel);
            }
            self.publish(&watched);
            fallen
        };
        if let Some(side) = fallen {
            tracing::error!(side, reason, "the database does not work");
        }
    }

    /// Takes operations that hang for failures.
    pub(super) fn look_for_hanging(&self) {
        let hanging: Vec<_> = {
            let in_progress = lock(&self.in_progress);
            in_progress
                .operations
                .iter()
                .filter(|(.., since)| since.elapsed() > STORE_ANSWER_MAX)
                .copied()
                .collect()
        };
        for (_, index, since) in hanging {
            let reason = format!("it has not answered for {} s", since.elapsed().as_secs());
            self.note_failure(index, &reason, HANGING_LASTS);
        }
    }

    /// True while the last operation of that side failed.
    pub(super) fn is_down(&self, side: Side) -> bool {
        self.any_down.load(Ordering::Acquire) && lock(&self.watched)[side.index()].failure.is_some()
    }

    /// Time since an operation of that side ended.
    pub(super) fn idle(&self, side: Side) -> Duration {
        lock(&self.watched)[side.index()].ended_at.elapsed()
    }

    /// Number of outages so far: a connection that is older than one may lead to a server that is none any more.
    pub(super) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Acquire)
    }

    /// The worst state of all sides.
    pub(super) fn health(&self) -> Health {
        self.look_for_hanging();
        let watched = lock(&self.watched);
        let failure = watched.iter().rev().find_map(|side| side.failure.as_ref());
        match failure {
            None => Health::Up,
            Some(failure) => Health::Down { since_ms: failure.since_ms, reason: failure.reason.clone() },
        }
    }

    fn publish(&self, watched: &[Watched]) {
        self.any_down.store(watched.iter().any(|side| side.failure.is_some()), Ordering::Release);
    }
}

impl Side {
    fn index(self) -> usize {
        match self {
            Self::Reads => 0,
            Self::Changes => 1,
            Self::Lane(lane) => 2 + lane,
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

    fn monitor() -> (Arc<Monitor>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        (Arc::new(Monitor::new(metrics.clone(), 2, true)), metrics)
    }

    fn up(metrics: &Metrics, side: &str) -> i64 {
        metrics.store_up.with_label_values(&[side]).get()
    }

    #[test]
    fn health_is_noted_before_it_is_logged() {
        let (monitor, metrics) = monitor();
        let logged = |work: &dyn Fn()| {
            let work = std::panic::AssertUnwindSafe(work);
            let outcome = std::panic::catch_unwind(|| tracing::subscriber::with_default(Panics, work));
            assert!(outcome.is_err(), "a line was logged");
        };
        logged(&|| monitor.failed(Side::Lane(0), "full"));
        assert!(monitor.is_down(Side::Lane(0)) && up(&metrics, "0") == 0);
        logged(&|| monitor.succeeded(Side::Lane(0)));
        assert_eq!((monitor.health(), up(&metrics, "0")), (Health::Up, 1));
    }

    #[test]
    fn each_side_heals_by_its_own_success() {
        let (monitor, metrics) = monitor();
        assert_eq!(monitor.health(), Health::Up);
        monitor.failed(Side::Lane(1), "full");
        monitor.succeeded(Side::Reads);
        monitor.succeeded(Side::Changes);
        monitor.succeeded(Side::Lane(0));
        assert!(matches!(monitor.health(), Health::Down { reason, .. } if reason == "full"));
        assert_eq!(["reads", "changes", "0", "1"].map(|side| up(&metrics, side)), [1, 1, 1, 0]);
        assert!(monitor.is_down(Side::Lane(1)) && !monitor.is_down(Side::Lane(0)));
        monitor.succeeded(Side::Lane(1));
        assert_eq!((monitor.health(), up(&metrics, "1")), (Health::Up, 1));
    }

    #[test]
    fn a_success_beside_a_failure_in_part_heals_nothing() {
        let (monitor, _) = monitor();
        monitor.failed_in_part(Side::Lane(0), "a lock");
        monitor.succeeded(Side::Lane(0));
        assert!(monitor.is_down(Side::Lane(0)));
        monitor.failed(Side::Lane(0), "all of it");
        monitor.succeeded(Side::Lane(0));
        assert_eq!(monitor.health(), Health::Up);
    }

    #[test]
    fn an_operation_that_hangs_is_a_failure_until_it_ends() {
        let (monitor, metrics) = monitor();
        let operation = monitor.begin(Side::Lane(0));
        assert_eq!(monitor.health(), Health::Up, "it has just begun");
        let long_ago = Instant::now().checked_sub(STORE_ANSWER_MAX * 2).unwrap();
        lock(&monitor.in_progress).operations[0].2 = long_ago;
        assert!(
            matches!(monitor.health(), Health::Down { reason, .. } if reason.contains("has not answered"))
        );
        assert_eq!((up(&metrics, "0"), up(&metrics, "1")), (0, 1));
        monitor.succeeded(Side::Lane(0));
        assert!(monitor.is_down(Side::Lane(0)), "another one that ends changes nothing");
        drop(operation);
        lock(&monitor.watched)[2].failure.as_mut().unwrap().holds_until = long_ago;
        monitor.succeeded(Side::Lane(0));
        assert_eq!(monitor.health(), Health::Up);
    }
}
