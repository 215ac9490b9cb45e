//! What the engine tells about rooms: presence for clients, status for operators. Plain data.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::delivery::choice::{Reason, Strategy};
use crate::ids::{Channel, Seq};
use crate::protocol::api::activity::RoomOrder;
use crate::publication::ClientInfo;

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

/// A question about active rooms.
#[derive(Clone)]
pub struct RoomQuery {
    /// Rooms with these names.
    pub matches: Arc<dyn Fn(&Channel) -> bool + Send + Sync>,
    /// Order of the answer.
    pub(crate) order: RoomOrder,
    /// Most rooms to return.
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

/// State of an active room.
#[derive(Debug, Clone)]
pub struct RoomStatus {
    /// The room.
    pub channel: Channel,
    /// Subscriptions.
    pub listeners: usize,
    /// Subscriptions among them that are served from the log.
    pub lagging: usize,
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
