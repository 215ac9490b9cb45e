//! The only way into a shard: a closed list of commands, applied in the order they were sent.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::catch_up::Job;
use super::delivery::{Reason, Strategy};
use super::join::Join;
use crate::config::Delivery;
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
    /// The pool has served a slice of this room.
    Served { channel: Channel },
    /// Who is in a room?
    Presence { channel: Channel, answer: Sender<Presence> },
    /// What do the rooms of this shard do?
    Status { query: RoomQuery, answer: Sender<Vec<RoomStatus>> },
    /// The operator names a strategy for a room, or takes that back. False: there are too many already.
    Wish { channel: Channel, wish: Option<Delivery>, answer: Sender<bool> },
    /// Wakes the worker.
    Nothing,
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

/// Which active rooms somebody asks about.
#[derive(Clone)]
pub struct RoomQuery {
    /// Rooms with these names.
    pub matches: Arc<dyn Fn(&Channel) -> bool + Send + Sync>,
    /// Which come first.
    pub order: RoomOrder,
    /// How many at most.
    pub limit: usize,
}

impl RoomQuery {
    /// Every active room.
    #[must_use]
    pub fn all() -> Self {
        Self { matches: Arc::new(|_| true), order: RoomOrder::Listeners, limit: usize::MAX }
    }
}

impl fmt::Debug for RoomQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomQuery").field("order", &self.order).field("limit", &self.limit).finish()
    }
}

/// What puts a room before others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomOrder {
    /// More publications per second.
    Rate,
    /// More listeners.
    Listeners,
    /// A later last message or join.
    Activity,
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
    /// Strategy of the last fan-out and why it was chosen, if there was one.
    pub choice: Option<(Strategy, Reason)>,
    /// The strategy that the operator wants.
    pub forced: Option<Strategy>,
    /// Publications per second, a mean over about 10 s.
    pub rate: f64,
    /// Expected time of one thread for one publication.
    pub cost: Duration,
    /// Since when the room is in memory.
    pub active_since: Instant,
    /// Last message or join.
    pub last_activity: Instant,
}
