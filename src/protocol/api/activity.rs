//! The operator's questions about rooms in memory: parameters and results of `rooms`, `lagging` and
//! `room_strategy`.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::config::Delivery;
use crate::ids::{Channel, Seq};
use crate::protocol::fields;
use crate::protocol::object::{Object, WriteMembers};

/// Entries of an answer when the request names no limit.
const LIMIT_DEFAULT: usize = 100;

/// Most entries of an answer: what a page of a console shows, and a few kilobytes.
pub(crate) const LIMIT_MAX: usize = 1000;

/// API `rooms`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RoomsParams {
    /// Only rooms whose names match; `*` stands for any run of characters.
    #[serde(default, deserialize_with = "fields::text")]
    pub pattern: Option<String>,
    /// Which come first.
    #[serde(default, deserialize_with = "fields::or_default")]
    pub order: RoomOrder,
    /// Most entries wanted.
    #[serde(default = "default_limit", deserialize_with = "limit")]
    pub limit: usize,
}

/// The order of a list of rooms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoomOrder {
    /// More publications per second.
    #[default]
    Rate,
    /// More listeners.
    Listeners,
    /// A later last message or join.
    Activity,
}

/// API `lagging`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct LaggingParams {
    /// Most entries wanted.
    #[serde(default = "default_limit", deserialize_with = "limit")]
    pub limit: usize,
}

/// API `room_strategy`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RoomStrategyParams {
    /// The room.
    #[serde(deserialize_with = "fields::channel")]
    pub channel: Channel,
    /// A strategy or `auto`; `None`: what the options of the namespace say.
    #[serde(default, deserialize_with = "delivery")]
    pub strategy: Option<Delivery>,
}

fn default_limit() -> usize {
    LIMIT_DEFAULT
}

fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match Option::<usize>::deserialize(deserializer)? {
        None => Ok(LIMIT_DEFAULT),
        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        Some(_) => Err(Error::custom(format!("limit must be between 1 and {LIMIT_MAX}"))),
    }
}

fn delivery<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Delivery>, D::Error> {
    let Some(name) = fields::text(deserializer)? else { return Ok(None) };
    let unknown = || Error::custom("strategy must be \"auto\", \"inline\", \"worker\" or \"parallel\"");
    Delivery::named(&name).map(Some).ok_or_else(unknown)
}

/// Result of `rooms`: active rooms, the first ones first.
#[derive(Debug)]
pub(crate) struct RoomsResult<'a>(pub &'a [ActiveRoom]);

impl WriteMembers for RoomsResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.list("rooms", self.0);
    }
}

/// A room in memory. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ActiveRoom {
    /// The room.
    pub channel: Channel,
    /// Subscriptions.
    pub listeners: u64,
    /// Subscriptions among them that are served from the log.
    pub lagging: u64,
    /// Seq of the newest message; `None` while it is being looked up.
    pub head: Option<Seq>,
    /// Publications per second.
    pub rate: f64,
    /// Strategy of the last delivery; empty when there was none.
    pub strategy: &'static str,
    /// Reason of that choice; empty when there was none.
    pub reason: &'static str,
    /// The strategy the operator wants; empty when the cost decides.
    pub forced: &'static str,
    /// Expected microseconds of one thread for one publication.
    pub cost_us: u64,
    /// Since when it is in memory.
    pub active_since_ms: i64,
    /// Last message or join.
    pub last_activity_ms: i64,
}

impl WriteMembers for ActiveRoom {
    fn write(&self, object: &mut Object<'_>) {
        object.string("channel", self.channel.as_str());
        object.number("num_clients", self.listeners);
        object.number("num_lagging", self.lagging);
        if let Some(head) = self.head {
            object.number("head", head);
        }
        object.raw("rate", &format!("{:.2}", self.rate));
        object.some_string("strategy", self.strategy);
        object.some_string("reason", self.reason);
        object.some_string("forced", self.forced);
        object.number("cost_us", self.cost_us);
        object.number("active_since", unsigned(self.active_since_ms));
        object.number("last_activity", unsigned(self.last_activity_ms));
    }
}

/// Result of `lagging`: subscriptions that are served from the log, the longest first.
#[derive(Debug)]
pub(crate) struct LaggingResult<'a> {
    /// Number of them.
    pub total: u64,
    /// The first of them.
    pub subscriptions: &'a [LaggingSubscription<'a>],
}

impl WriteMembers for LaggingResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.number("total", self.total);
        object.list("lagging", self.subscriptions);
    }
}

/// One subscription that is served from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaggingSubscription<'a> {
    /// Client id of the connection.
    pub client: &'a str,
    /// Its user.
    pub user: &'a str,
    /// The room.
    pub channel: &'a Channel,
    /// `slow` or `resume`.
    pub cause: &'static str,
    /// The last message it was given.
    pub offset: Seq,
    /// Since when, in Unix milliseconds.
    pub since_ms: i64,
    /// Bytes that wait in its outbox.
    pub queued_bytes: u64,
}

impl WriteMembers for LaggingSubscription<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.string("client", self.client);
        object.string("user", self.user);
        object.string("channel", self.channel.as_str());
        object.string("cause", self.cause);
        object.number("offset", self.offset);
        object.number("since", unsigned(self.since_ms));
        object.number("queued_bytes", self.queued_bytes);
    }
}

/// A time before 1970 comes only from a broken clock.
fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}
