//! The locks of the commit lane's hand-over protocol, in one place, so that a model checker's can
//! take theirs.

pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Locks whether or not a thread died with the lock held: every change under these locks is a
/// single step, so that the value is whole at any moment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification, as [`lock`] locks.
pub(super) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
