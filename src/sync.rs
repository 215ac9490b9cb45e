//! The locks and atomics of the protocols that a model checker runs: the commit lane's hand-over,
//! the ownership of a shard, the seats of connections and their line for queries, the outbox and its drainer.
//!
//! They are the standard library's. Under the feature `model` the unit tests get those of the model
//! checker instead, which decides at each of them who goes on (`model.rs` beside the protocols).

pub(crate) mod blocking;
pub(crate) mod deadline;
#[cfg(all(test, feature = "model"))]
pub(crate) mod model;
mod sharded_mutex;

use std::time::Duration;

#[cfg(all(test, feature = "model"))]
use shuttle::sync as backing;
#[cfg(not(all(test, feature = "model")))]
use std::sync as backing;

pub(crate) use backing::atomic::{AtomicBool, Ordering};
pub(crate) use backing::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
pub(crate) use sharded_mutex::ShardedMutex;

/// Locks whether or not a thread died with the lock held; for values that every change leaves
/// whole, so that one of them is as good as any other.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification, as [`lock`] locks.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification or until `timeout` has passed, as [`lock`] locks.
pub(crate) fn wait_timeout<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> MutexGuard<'a, T> {
    condvar.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
}
