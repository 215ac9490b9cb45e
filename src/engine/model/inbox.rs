//! The queue of a shard for the model checker: what `engine/inbox.rs` promises, and no more.
//!
//! It is so short that senders have to wait. A deadline may be over at any time, also at once; one
//! that is not over at once never is, so that whoever sleeps must be woken.

use std::collections::VecDeque;
use std::time::Instant;

use shuttle::rand::{Rng, thread_rng};

use crate::sync::{Condvar, Mutex, lock, wait};

const CAPACITY: usize = 2;

#[derive(Debug)]
pub(in crate::engine) struct Inbox<T> {
    queue: Mutex<VecDeque<T>>,
    changed: Condvar,
}

impl<T> Inbox<T> {
    pub(in crate::engine) fn new(_: usize) -> Self {
        Self { queue: Mutex::default(), changed: Condvar::new() }
    }

    pub(in crate::engine) fn send(&self, value: T) {
        let mut queue = lock(&self.queue);
        while queue.len() >= CAPACITY {
            queue = wait(&self.changed, queue);
        }
        queue.push_back(value);
        drop(queue);
        self.changed.notify_all();
    }

    pub(in crate::engine) fn try_send(&self, value: T) -> bool {
        let mut queue = lock(&self.queue);
        let fits = queue.len() < CAPACITY;
        if fits {
            queue.push_back(value);
            drop(queue);
            self.changed.notify_all();
        }
        fits
    }

    pub(in crate::engine) fn try_recv(&self) -> Option<T> {
        let taken = lock(&self.queue).pop_front();
        if taken.is_some() {
            self.changed.notify_all();
        }
        taken
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        lock(&self.queue).is_empty()
    }

    pub(in crate::engine) fn wait(&self, deadline: Option<Instant>) {
        if deadline.is_some() && thread_rng().gen_bool(0.5) {
            return;
        }
        let mut queue = lock(&self.queue);
        while queue.is_empty() {
            queue = wait(&self.changed, queue);
        }
    }
}
