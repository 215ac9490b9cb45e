//! A reader for tests: a thread that sleeps until its outbox wakes it.

use super::{Outbox, Reader, Work};
use crate::ids::ConnectionId;
use crate::sync::{Condvar, Mutex, lock, wait};

/// Remembers a wake-up until somebody waits for it.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Waits while more than the budget is queued.
    pub(super) fn wait_for_capacity(&self, outbox: &Outbox) {
        while outbox.wake_at_capacity() {
            self.wait();
        }
    }

    /// Waits while anything is queued.
    pub(super) fn wait_flushed(&self, outbox: &Outbox) {
        while outbox.wake_at_flushed() {
            self.wait();
        }
    }

    /// Waits for a wake-up, or takes one that came before.
    pub(super) fn wait(&self) {
        let mut rung = lock(&self.rung);
        while !std::mem::take(&mut *rung) {
            rung = wait(&self.changed, rung);
        }
    }
}

impl Reader for Bell {
    fn run(&self, work: Work) {
        work();
    }

    fn wake(&self, _: ConnectionId) {
        *lock(&self.rung) = true;
        self.changed.notify_all();
    }
}
