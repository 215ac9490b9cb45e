//! Whether the database answers: told once when it changes, shown in `/health` and the metrics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::metrics::Metrics;

/// Which half of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Read,
    Write,
}

impl Side {
    const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// State of the database as the last operations found it.
#[derive(Debug, Clone)]
pub enum Health {
    /// It answers.
    Up,
    /// It fails.
    Down {
        /// Since when.
        since: Instant,
        /// What it said last.
        reason: String,
    },
}

/// Keeps the state of both sides: a full disk can still be read.
#[derive(Debug)]
pub(super) struct Monitor {
    sides: Mutex<[Health; 2]>,
    metrics: Arc<Metrics>,
}

impl Monitor {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.store_up.set(1);
        Self { sides: Mutex::new([Health::Up, Health::Up]), metrics }
    }

    /// Down if either side is; writing first, because that is what people notice.
    pub(super) fn state(&self) -> Health {
        let [read, write] = &*self.lock();
        if matches!(write, Health::Up) { read.clone() } else { write.clone() }
    }

    pub(super) fn is_up(&self, side: Side) -> bool {
        matches!(self.lock()[side as usize], Health::Up)
    }

    pub(super) fn worked(&self, side: Side) {
        let mut sides = self.lock();
        if let Health::Down { since, .. } = &sides[side as usize] {
            let seconds = since.elapsed().as_secs();
            tracing::info!(side = side.word(), seconds, "the database answers again");
            sides[side as usize] = Health::Up;
            self.show(&sides);
        }
    }

    pub(super) fn failed(&self, side: Side, reason: &str) {
        let mut sides = self.lock();
        match &mut sides[side as usize] {
            Health::Down { reason: last, .. } => reason.clone_into(last),
            up => {
                tracing::error!(
                    side = side.word(),
                    reason,
                    "the database does not answer; it is tried again with every use"
                );
                *up = Health::Down { since: Instant::now(), reason: reason.to_owned() };
                self.show(&sides);
            }
        }
    }

    fn show(&self, sides: &[Health; 2]) {
        let up = sides.iter().all(|side| matches!(side, Health::Up));
        self.metrics.store_up.set(i64::from(up));
    }

    fn lock(&self) -> MutexGuard<'_, [Health; 2]> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
