//! All cores walk the members, each one chunk after the other.
//!
//! The caller owns the shard, serves chunks itself and waits for its helpers, so no frame of the room
//! can overtake another; within one outbox there is only one frame to push.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::{Outcome, serial};
use crate::engine::members::Member;

/// Members served at a time: enough that taking them costs nothing beside their sends, few enough
/// that nobody waits long for the last one.
const CHUNK: usize = 64;

/// Pushes the frames to every live member. `first` is the position of the slice's first member.
pub(in crate::engine) fn fan_out(members: &[Member], first: usize, frames: &Bytes) -> Outcome {
    let next = AtomicUsize::new(0);
    // Not of `crate::sync`: rayon's threads are no part of what the model checker runs.
    let total = Mutex::new(Outcome::default());
    let serve = || {
        let mut outcome = Outcome::default();
        loop {
            let from = next.fetch_add(CHUNK, Ordering::Relaxed);
            let Some(rest) = members.get(from..).filter(|rest| !rest.is_empty()) else { break };
            let chunk = &rest[..CHUNK.min(rest.len())];
            outcome.merge(serial::fan_out(chunk, first + from, frames));
            std::thread::yield_now();
        }
        total.lock().unwrap_or_else(PoisonError::into_inner).merge(outcome);
    };
    // The caller's core is awake and at work; only the others are to be woken.
    rayon::in_place_scope(|scope| {
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(|_| serve());
        }
        serve();
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}
