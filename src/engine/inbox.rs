//! The queue of a shard: many put commands in, the owner of the shard takes them out.
//!
//! Bounded, so that who produces faster than a shard works has to wait. Waiting for a command and
//! taking one are two steps, because commands are only taken with the shard's lock held. The model
//! checker has a queue with the same contract in `model/inbox.rs`.

use std::time::Instant;

use crossbeam_channel::{Receiver, Select, Sender, TrySendError, bounded};

use crate::sync::blocking::{For, waiting_for};

/// A bounded queue with one consumer, which may sleep without taking anything out.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
}

impl<T> Inbox<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self { sender, receiver }
    }

    /// Puts one in; blocks while the queue is full.
    pub(super) fn send(&self, value: T) {
        let sent = match self.sender.try_send(value) {
            Err(TrySendError::Full(value)) => waiting_for(For::Queue, || self.sender.send(value)).is_ok(),
            done => done.is_ok(),
        };
        if !sent {
            tracing::error!("a shard has lost its queue"); // Both ends live in this struct.
        }
    }

    /// False, and nothing is put in, when the queue is full.
    pub(super) fn try_send(&self, value: T) -> bool {
        self.sender.try_send(value).is_ok()
    }

    /// Takes the oldest out, if there is one.
    pub(super) fn try_recv(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Sleeps until there is something to take, which stays where it is, or until `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        let mut select = Select::new();
        select.recv(&self.receiver);
        match deadline {
            Some(deadline) => drop(select.ready_deadline(deadline)),
            None => drop(select.ready()),
        }
    }
}
