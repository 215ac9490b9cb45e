//! The only way into a shard: a closed list of commands, applied in the order they were sent.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::catch_up::Job;
use super::delivery::Strategy;
use super::join::Join;
use crate::ids::{Channel, ConnectionId, Seq, SubscriptionId};
use crate::outbox::Outbox;
use crate::publication::{ClientInfo, Publication};

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
    /// Who is in a room?
    Presence { channel: Channel, answer: Sender<Presence> },
    /// What do the rooms of this shard do?
    Status { answer: Sender<Vec<RoomStatus>> },
    /// Nothing is said; the sender is dropped once all that came before is in the outboxes.
    Settle { done: Sender<()> },
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

/// The listeners of a room.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    /// One entry a subscription; empty when the room has more than `presence_max_listeners`.
    pub clients: Vec<Arc<ClientInfo>>,
    /// Subscriptions.
    pub clients_count: usize,
    /// Different user ids among them; all anonymous ones are one. For a room without a list this is
    /// exact too.
    pub users_count: usize,
    /// The room is too large for a list.
    pub too_large: bool,
}

/// What an active room does.
#[derive(Debug, Clone)]
pub struct RoomStatus {
    /// The room.
    pub channel: Channel,
    /// Subscriptions.
    pub listeners: usize,
    /// Subscriptions among them that are served from the log.
    pub catching_up: usize,
    /// Seq of the newest message; `None` while it is being looked up.
    pub head: Option<Seq>,
    /// Strategy of the last fan-out, if there was one.
    pub strategy: Option<Strategy>,
    /// Since when the room is in memory.
    pub active_since: Instant,
    /// Last message or join.
    pub last_activity: Instant,
}
