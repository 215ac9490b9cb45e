//! The mailboxes of an engine: one queue of commands a shard, and which shard a channel belongs to.
//!
//! Made before everything that sends commands, so that the engine, the catch-up pool and the pool of
//! parallel fan-outs hold the same ones. A mailbox never looks into a room.

#[cfg(not(all(test, feature = "model")))]
use super::inbox::Inbox;
#[cfg(all(test, feature = "model"))]
use super::model::inbox::Inbox;

use std::time::Instant;

use super::command::Command;
use crate::ids::Channel;
use crate::limits::SHARD_QUEUE_MAX;
use crate::metrics::Metrics;
use crate::sync::{Arc, AtomicBool, Ordering};

/// One mailbox a shard.
#[derive(Debug)]
pub(super) struct Mailboxes(Vec<Arc<Mailbox>>);

/// The queue of one shard, with a count of what waits in all of them.
#[derive(Debug)]
pub(super) struct Mailbox {
    inbox: Inbox<Command>,
    /// The worker has ended; commands would wait forever.
    closed: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Mailboxes {
    pub(super) fn new(count: usize, metrics: &Arc<Metrics>) -> Self {
        Self((0..count.max(1)).map(|_| Arc::new(Mailbox::new(metrics.clone()))).collect())
    }

    /// Index of the shard a room lives in; the same for the whole run.
    pub(super) fn index_of(&self, channel: &Channel) -> usize {
        (channel.stable_hash() % self.0.len() as u64) as usize
    }

    /// The mailbox of the shard a room lives in.
    pub(super) fn of(&self, channel: &Channel) -> &Mailbox {
        &self.0[self.index_of(channel)]
    }

    /// Queues a command at the shard with this index; blocks while its queue is full.
    pub(super) fn send(&self, index: usize, command: Command) {
        self.0[index].send(command);
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Mailbox>> {
        self.0.iter()
    }
}

impl Mailbox {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self { inbox: Inbox::new(SHARD_QUEUE_MAX), closed: AtomicBool::new(false), metrics }
    }

    /// Queues a command; blocks while the queue is full. After [`close`](Self::close) commands are
    /// dropped, and with them the channel on which an answer would come.
    pub(super) fn send(&self, command: Command) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.metrics.shard_queue_depth.inc();
        self.inbox.send(command);
        // It may have been closed between the check and the send; then this command is ours to drop.
        if self.closed.load(Ordering::Acquire) {
            self.drop_queued();
        }
    }

    /// Wakes the worker. A full queue means that it is awake.
    pub(super) fn wake(&self) {
        if self.inbox.try_send(Command::Wake) {
            self.metrics.shard_queue_depth.inc();
        }
    }

    /// Drops what is queued and everything that is sent from now on. For the time after the worker's end.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.drop_queued();
    }

    /// Takes the oldest command out. Only the owner of the shard calls this, and counts with
    /// [`count_taken`](Self::count_taken) what it took.
    pub(super) fn try_take(&self) -> Option<Command> {
        self.inbox.try_recv()
    }

    pub(super) fn count_taken(&self, commands: usize) {
        self.metrics.shard_queue_depth.sub(commands as i64);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }

    /// Sleeps until there is a command, which stays in the queue, or until `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        self.inbox.wait(deadline);
    }

    fn drop_queued(&self) {
        while self.try_take().is_some() {
            self.count_taken(1);
        }
    }
}
