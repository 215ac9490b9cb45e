//! A value split over several locks, so that many threads rarely meet at one.

use super::{Mutex, MutexGuard, lock};

/// Locks a value is split over: more than threads that run at the same time on most machines.
const PARTS: usize = 16;

/// A value in several parts, each behind a mutex of its own; a number chooses the part.
#[derive(Debug, Default)]
pub(crate) struct ShardedMutex<T>([Mutex<T>; PARTS]);

impl<T> ShardedMutex<T> {
    /// The part that this number belongs to.
    pub(crate) fn of(&self, number: u64) -> MutexGuard<'_, T> {
        lock(&self.0[(number % PARTS as u64) as usize])
    }

    /// Every part, one after the other; no two are locked at the same time.
    pub(crate) fn each<'a, R>(
        &'a self,
        mut visit: impl FnMut(&mut T) -> R + 'a,
    ) -> impl Iterator<Item = R> + 'a {
        self.0.iter().map(move |part| visit(&mut lock(part)))
    }
}
