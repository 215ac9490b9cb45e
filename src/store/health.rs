//! Whether the database answers: told once when it changes, shown in `/health` and the metrics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::metrics::Metrics;

/// State of the database as the last operation found it.
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

/// Keeps the state.
#[derive(Debug)]
pub(super) struct Monitor {
    state: Mutex<Health>,
    metrics: Arc<Metrics>,
}

impl Monitor {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.store_up.set(1);
        Self { state: Mutex::new(Health::Up), metrics }
    }

    pub(super) fn state(&self) -> Health {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.lock().unwrap_or_else(PoisonError::into_inner), Health::Up)
    }

    pub(super) fn worked(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Health::Down { since, .. } = &*state {
            tracing::info!(seconds = since.elapsed().as_secs(), "the database answers again");
            self.metrics.store_up.set(1);
            *state = Health::Up;
        }
    }

    pub(super) fn failed(&self, reason: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            Health::Down { reason: last, .. } => reason.clone_into(last),
            Health::Up => {
                tracing::error!(reason, "the database does not answer; messages are refused until it does");
                self.metrics.store_up.set(0);
                *state = Health::Down { since: Instant::now(), reason: reason.to_owned() };
            }
        }
    }
}
