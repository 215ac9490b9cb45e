//! The only way into a shard: a closed list of commands, applied in the order they were sent.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::catch_up::job::Job;
use super::inspect::{Presence, RoomQuery, RoomStatus};
use super::join::Join;
use crate::config::Delivery;
use crate::ids::{Channel, ConnectionId, Seq, SubscriptionId};
use crate::outbox::Outbox;
use crate::publication::Publication;

/// See the module.
#[derive(Debug)]
pub(super) enum Command {
    /// Publications of one commit, in commit order, or one that is not stored.
    Publish { publications: Vec<Publication>, committed_at: Instant },
    /// A listener wants to be in a room.
    Join(Box<Join>),
    /// A subscription ended.
    Leave {
        channel: Channel,
        connection: ConnectionId,
        subscription: SubscriptionId,
        farewell: Option<Farewell>,
    },
    /// The head of a room that had none in memory.
    Head { channel: Channel, head: Option<Seq> },
    /// A listener that was served from the log has everything up to its target.
    CaughtUp(Box<Job>),
    /// The pool has served a slice of this room.
    SliceDone { channel: Channel },
    /// Who is in a room?
    Presence { channel: Channel, answer: Sender<Presence> },
    /// What do the rooms of this shard do?
    Status { query: RoomQuery, answer: Sender<Vec<RoomStatus>> },
    /// The operator names a strategy for a room, or takes that back. False: there are too many already.
    OverrideStrategy { channel: Channel, delivery: Option<Delivery>, answer: Sender<bool> },
    /// Wakes the worker.
    Wake,
    /// Nothing is said; the sender is dropped once all that came before is in the outboxes.
    Flush { done: Sender<()> },
    /// The worker ends.
    Stop,
}

/// The last frame of a subscription. It is sent when it is dropped, so that it comes behind
/// everything the room gave the listener, and whatever happens to the command that carries it.
#[derive(Debug)]
pub(super) struct Farewell {
    pub(super) outbox: Arc<Outbox>,
    pub(super) frame: Bytes,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.outbox.reply(&self.frame);
    }
}
