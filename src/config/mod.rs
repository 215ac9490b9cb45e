//! What an operator can set: the checked configuration, one struct a section.
//!
//! `file` and `env` read what was given into `raw`; `check` turns that into the types below, which
//! hold no illegal value. A part of the program is handed its section, never the whole.

mod check;
mod database_url;
pub mod defaults;
mod env;
mod error;
mod file;
mod load;
mod nearest;
mod raw;
mod secret;
mod show;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use env::CONFIG_FILE;
pub use error::{ConfigError, Origin, Problem};
pub use load::{Flag, Loaded, Sources};
pub use raw::{Key, keys};
pub use secret::Secret;

use crate::publication::Retention;

/// Who is let in, as the secret and `client.insecure` say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No secret and not `insecure`: everybody on this machine, nobody else.
    Open,
    /// `insecure`: everybody who can reach the address.
    Insecure,
    /// A secret: who brings a token signed with it.
    Secured,
}

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen: `listen`.
    pub listen: SocketAddr,
    /// Broadcast workers, one shard each; already resolved, at least 1.
    pub workers: usize,
    /// `[database]`
    pub database: Database,
    /// `[client]`
    pub client: Client,
    /// `[api]`
    pub api: Api,
    /// `[rooms]`
    pub rooms: Rooms,
    /// The default namespace and `[namespace.NAME]`.
    pub namespaces: Namespaces,
    /// `[log]`
    pub log: Log,
    /// Time for outboxes to flush at shutdown: `shutdown_grace`.
    pub shutdown_grace: Duration,
}

impl Config {
    /// Who is let in.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (self.client.insecure, &self.client.token_hmac_secret) {
            (true, _) => Mode::Insecure,
            (false, Some(_)) => Mode::Secured,
            (false, None) => Mode::Open,
        }
    }
}

/// Where messages live.
#[derive(Debug, Clone)]
pub struct Database {
    /// Which database.
    pub url: DatabaseUrl,
    /// What an ack promises.
    pub durability: Durability,
    /// Connections that only read (history, resume, catch-up).
    pub read_connections: u32,
    /// Commit lanes; always 1 on SQLite, which has one writer.
    pub commit_lanes: usize,
    /// Most rows in one commit.
    pub batch_rows_max: usize,
    /// Most payload bytes in one commit.
    pub batch_bytes_max: usize,
}

/// Which database, from `database.url`. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of the embedded SQLite.
    Sqlite(PathBuf),
    /// A libpq connection URL.
    Postgres(String),
}

/// What the database does before a commit returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// An acked message survives `kill -9` and power loss.
    Full,
    /// An acked message survives `kill -9`; a power loss may take the last moments.
    Normal,
}

/// Rules for client connections.
#[derive(Debug, Clone)]
pub struct Client {
    /// Anyone may connect, subscribe and publish; tokens that are presented are still verified.
    pub insecure: bool,
    /// HS256 key of connection and subscription tokens; `None` when not set.
    pub token_hmac_secret: Option<Secret>,
    /// Required `aud` claim, if any.
    pub token_audience: Option<String>,
    /// Required `iss` claim, if any.
    pub token_issuer: Option<String>,
    /// A connection without a token is the anonymous user instead of being refused.
    pub allow_anonymous: bool,
    /// Origins besides the server's own from which a browser may connect; `*` matches any run of characters.
    pub allowed_origins: Vec<String>,
    /// Time between server pings.
    pub ping_interval: Duration,
    /// Time a client has to answer a ping; shorter than `ping_interval`.
    pub pong_timeout: Duration,
    /// Time a client has to send `connect`.
    pub connect_timeout: Duration,
    /// Time past a token's expiry in which a refresh is awaited.
    pub expired_close_delay: Duration,
    /// Most subscriptions of one connection.
    pub channels_max: usize,
    /// Largest incoming WebSocket message in bytes.
    pub message_bytes_max: usize,
    /// Bytes queued for one connection before the server stops queueing room messages for it.
    pub outbox_bytes_max: usize,
    /// Time after which a socket that accepts no byte at all is closed.
    pub stall_timeout: Duration,
    /// Commands one connection may send per second, averaged over a second.
    pub commands_per_second_max: u32,
    /// Most connections at once; `None`: what the file limit allows.
    pub connections_max: Option<usize>,
}

/// The HTTP API.
#[derive(Debug, Clone)]
pub struct Api {
    /// Key that `X-API-Key` must carry; `None`: the API is only served in open mode.
    pub key: Option<Secret>,
}

/// Rooms in memory and how they are served.
#[derive(Debug, Clone)]
pub struct Rooms {
    /// A room without listeners and messages for this long leaves memory.
    pub idle_timeout: Duration,
    /// Rooms with more listeners than this are never served by the sender's own thread.
    pub inline_max_listeners: usize,
    /// Longest time the sender's own thread is expected to take for all listeners of a room.
    pub inline_max_cost: Duration,
    /// Rooms with fewer listeners than this are never split over all cores.
    pub parallel_min_listeners: usize,
    /// Time one thread is expected to take from which on the listeners are split over all cores.
    pub parallel_min_cost: Duration,
    /// Threads that serve resumes and slow listeners from the database.
    pub catch_up_workers: usize,
}

/// Who gives a publication to the listeners of its room, and on how many cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The thread that committed the message, holding the shard: no hand-off, lowest latency.
    Inline,
    /// The shard's worker, alone.
    Worker,
    /// A pool of one thread a core, while the shard's worker serves other rooms.
    Parallel,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 3] = [Self::Inline, Self::Worker, Self::Parallel];

    /// The name that configuration, metrics and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Worker => "worker",
            Self::Parallel => "parallel",
        }
    }
}

/// What an operator wants for a room: a strategy, or the one its cost suggests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// What the room costs decides.
    Auto,
    /// Always this one, where it is possible.
    Forced(Strategy),
}

impl Delivery {
    /// The wish with this name: `auto` or that of a strategy.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let strategy = || Strategy::ALL.into_iter().find(|strategy| strategy.as_str() == name);
        if name == Self::Auto.name() { Some(Self::Auto) } else { strategy().map(Self::Forced) }
    }

    /// As written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.strategy().map_or("auto", Strategy::as_str)
    }

    /// The strategy, unless the cost decides.
    #[must_use]
    pub fn strategy(self) -> Option<Strategy> {
        match self {
            Self::Auto => None,
            Self::Forced(strategy) => Some(strategy),
        }
    }
}

/// Who may do something in the rooms of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// No client; only the server API.
    Nobody,
    /// Users listed as members of the room in the database.
    Members,
    /// Connections subscribed to the room.
    Subscribers,
    /// Connections with a user id.
    Users,
    /// Every connection.
    Everyone,
}

/// Options of the rooms that share a name prefix.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// The part before `:`; empty for the default namespace.
    pub name: String,
    /// Messages are stored and numbered; false: they are only passed on, and dropped for who is slow.
    pub persist: bool,
    /// Newest messages that stay readable; 0 = all.
    pub history_size: u64,
    /// Age after which messages are no longer readable; `None` = never.
    pub history_ttl: Option<Duration>,
    /// Presence can be asked for.
    pub presence: bool,
    /// Joins and leaves are pushed to the listeners of small rooms.
    pub join_leave: bool,
    /// Rooms with more listeners than this push no joins and leaves.
    pub join_leave_max_listeners: usize,
    /// Rooms with more listeners than this answer only counts, no list.
    pub presence_max_listeners: usize,
    /// Every user is subscribed to `NAME:#user` by the server at connect.
    pub personal: bool,
    /// Subscribing needs a subscription token.
    pub token_required: bool,
    /// A room comes into being with its first message; false: only through the API.
    pub auto_create: bool,
    /// Who may subscribe.
    pub subscribe: Audience,
    /// Who may publish.
    pub publish: Audience,
    /// Who may read presence.
    pub read_presence: Audience,
    /// Who may read history, and recover by it.
    pub read_history: Audience,
    /// Who delivers.
    pub strategy: Delivery,
    /// Largest payload in bytes.
    pub message_bytes_max: usize,
}

impl Namespace {
    /// Which messages of its rooms can be read.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention { size: self.history_size, ttl: self.history_ttl }
    }
}

/// All namespaces. `direct` is reserved: the rooms of two contacts.
#[derive(Debug, Clone)]
pub struct Namespaces {
    /// For channels without a `:`.
    pub default: Arc<Namespace>,
    /// For channels with a `:`, by the part before it; always holds `direct`.
    pub named: std::collections::BTreeMap<String, Arc<Namespace>>,
}

/// Name of the namespace that holds the rooms of two contacts.
pub const DIRECT_NAMESPACE: &str = "direct";

impl Namespaces {
    /// The namespace of that name, if it is configured; the empty name is the default one.
    pub fn get(&self, name: &str) -> Option<&Arc<Namespace>> {
        if name.is_empty() { Some(&self.default) } else { self.named.get(name) }
    }

    /// All namespaces, the default one first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        std::iter::once(&self.default).chain(self.named.values())
    }
}

/// How the server logs.
#[derive(Debug, Clone)]
pub struct Log {
    /// A filter such as `info` or `roomcast=debug`.
    pub filter: String,
    /// One JSON object a line instead of text for people.
    pub json: bool,
}

#[cfg(test)]
mod tests;
