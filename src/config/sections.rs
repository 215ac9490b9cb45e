//! The settings of every section but the top: one entry each, with type, default and range.
//!
//! A new setting is an entry here and its use; the tables of docs/configuration.md and
//! roomcast.example.toml are written from it (see `tests::documents`).

use std::ops::RangeInclusive;
use std::time::Duration;

use super::choice::{Audience, Delivery, Durability, Failover, PayloadKind};
use super::database_url::DatabaseUrl;
use super::number::{Bytes, Count, CountOrNone, Time, TimeOrNone};
use super::secret::Secret;
use super::setting::settings;
use super::text::{Filter, OneOf, Origins, Proxies, SecretOrNone, Switch, TextOrNone, Url};
use super::trusted_proxies::TrustedProxies;
use crate::limits::MESSAGE_BYTES_MAX;

/// Longer timers are typing errors, and could overflow the clock.
const TIMER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Shorter timers would only burn the processor.
const TIMER: RangeInclusive<Duration> = Duration::from_millis(10)..=TIMER_MAX;
/// Eviction costs nothing but the next look-up, so rooms may leave memory sooner than other timers fire.
const IDLE: RangeInclusive<Duration> = Duration::from_millis(1)..=TIMER_MAX;
/// Waits that may be left out.
pub(super) const DELAY: RangeInclusive<Duration> = Duration::ZERO..=TIMER_MAX;
/// A fan-out that takes longer is no longer a matter of strategy.
const COST: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10);
/// The pruner works in steps of seconds. The end is a hundred years, far from that of the clock.
const AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_155_760_000);
/// Larger messages and queues are typing errors.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// More for strangers is more than for the clients.
const STRANGERS_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Larger counts are typing errors.
const COUNT_MAX: u64 = 1_000_000_000;

settings! {
    /// The database that holds rooms and messages: `[database]`.
    pub struct Database from RawDatabase in "database" {
        /// Database that holds the messages: `sqlite:FILE`, or `postgres://USER:PASSWORD@HOST/DATABASE`.
        url: DatabaseUrl = "sqlite:roomcast.db", Url;
        /// `full`: an acked message survives power loss; `normal`: it survives a crash of the server, a power loss may take the last moments.
        durability: Durability = "full", OneOf;
        /// PostgreSQL: `lossy`: a promoted copy may lack messages, so clients are told that continuity is lost; `lossless`: replication is synchronous, and they go on.
        failover: Failover = "lossy", OneOf;
        /// Connections that only read: history, resumes, catch-up.
        ///
        /// Readers wait for disks more than for processors, so a few more than cores. Clients query as many at a
        /// time; the others wait in line.
        read_connections: u32 = 4, Count(1..=256);
        /// Commits that may run side by side; 0 = 4 on PostgreSQL and 1 on SQLite, which allows no other.
        ///
        /// Never 0 in a checked configuration. More lanes make smaller batches.
        commit_lanes: usize = 0, Count(0..=64);
        /// Most messages in one commit.
        ///
        /// A larger batch gains nothing and makes its first message wait.
        batch_rows_max: usize = 1024, Count(1..=65_536);
        /// Most payload bytes in one commit.
        ///
        /// Bounds the memory and the time of one commit when messages are large.
        batch_bytes_max: usize = "4MiB", Bytes(1024..=BYTES_MAX);
    }
}

settings! {
    /// Rules for client connections: `[client]`.
    pub struct Client from RawClient in "client" {
        /// Anyone may connect, subscribe and publish; with a secret, who brings no token is the anonymous user.
        insecure: bool = false, Switch;
        /// HS256 key of connection and subscription tokens, at least 32 bytes; empty = none.
        token_hmac_secret: Option<Secret> = "", SecretOrNone;
        /// The `aud` claim that tokens must carry; empty = any.
        token_audience: Option<String> = "", TextOrNone;
        /// The `iss` claim that tokens must carry; empty = any.
        token_issuer: Option<String> = "", TextOrNone;
        /// A connection without a token is the anonymous user instead of being refused.
        allow_anonymous: bool = false, Switch;
        /// Origins besides the server's own from which a browser may connect; `*` matches any run of characters.
        allowed_origins: Vec<String> = [], Origins;
        /// Time between two pings of the server.
        ///
        /// Shorter than the 30 s after which common proxies cut a quiet connection.
        ping_interval: Duration = "25s", Time(TIMER);
        /// Time a client has to answer a ping; shorter than `ping_interval`.
        ///
        /// A mobile network wakes up within it.
        pong_timeout: Duration = "8s", Time(TIMER);
        /// Time a client has to send `connect`.
        ///
        /// Some SDKs fetch their token between opening the socket and connecting.
        connect_timeout: Duration = "15s", Time(TIMER);
        /// Time past the expiry of a token in which a fresh one is awaited.
        ///
        /// SDKs refresh at the moment of expiry and retry after 5 to 20 seconds.
        expired_close_delay: Duration = "25s", Time(DELAY);
        /// Most subscriptions of one connection.
        channels_max: usize = 128, Count(1..=COUNT_MAX);
        /// Largest incoming WebSocket message; at least 4 KiB more than the largest `message_bytes_max` of a namespace.
        ///
        /// SDKs put all subscribes of a reconnect, with tokens, into one message, and treat the close
        /// code for "too large" as final.
        message_bytes_max: usize = "512KiB", Bytes(1024..=BYTES_MAX);
        /// Memory for what is queued for one connection before it is served from the database at its own pace.
        outbox_bytes_max: usize = "256KiB", Bytes(1024..=BYTES_MAX);
        /// Time after which a socket that takes no byte at all is closed.
        ///
        /// By then the connection is considered dead.
        stall_timeout: Duration = "60s", Time(TIMER);
        /// Commands one connection may send per second.
        ///
        /// Far above what people type, below what would starve others.
        commands_per_second_max: u32 = 50000, Count(1..=COUNT_MAX);
        /// Most connections at once; 0 = as many as the limits of the system allow.
        connections_max: Option<usize> = 0, CountOrNone(0..=COUNT_MAX);
        /// Proxies that are believed when they name the address of a client: addresses, blocks such as `10.0.0.0/8`, `loopback`, `private`.
        trusted_proxies: TrustedProxies = [], Proxies;
        /// Connections from trusted proxies begin with the header of the PROXY protocol, version 1 or 2.
        proxy_protocol: bool = false, Switch;
        /// Most sockets of one address at once (IPv6: of one /64 network); 0 = no limit.
        ///
        /// Several hundred people behind one address, with two tabs each, and all of them twice while the
        /// connections of a network that changed are not known to be dead yet.
        address_sockets_max: Option<usize> = 2000, CountOrNone(0..=COUNT_MAX);
        /// New sockets of one address per second, ten times as many at once after a pause; 0 = no limit.
        ///
        /// A whole office comes back at once after a restart; nobody else opens 100 sockets each second.
        address_sockets_per_second_max: Option<usize> = 100, CountOrNone(0..=COUNT_MAX);
        /// Most sockets of one address that have neither connected nor asked anything by HTTP; 0 = no limit.
        ///
        /// An honest client is one for a second, so this many stand for hundreds of clients a second.
        address_strangers_max: Option<usize> = 500, CountOrNone(0..=COUNT_MAX);
        /// Bytes held for all connections that have not connected: HTTP heads and bodies, first frames.
        ///
        /// Some 30,000 clients that connect at once. One that needs more than 4 KiB is refused when three
        /// quarters are in use.
        strangers_bytes_max: usize = "64MiB", Bytes(1024 * 1024..=STRANGERS_BYTES_MAX);
    }
}

settings! {
    /// The HTTP API: `[api]`.
    pub struct Api from RawApi in "api" {
        /// Key that `X-API-Key` must carry; empty = the HTTP API is served in open mode only.
        key: Option<Secret> = "", SecretOrNone;
    }
}

settings! {
    /// Rooms in memory and the delivery to their listeners: `[rooms]`.
    pub struct Rooms from RawRooms in "rooms" {
        /// Most time a room stays in memory without listeners and messages: as long as it was in use before.
        ///
        /// Under a second of use is none, and a message counts for 10 s. Long enough for a page reload
        /// or a short break to find the room in memory.
        idle_timeout: Duration = "10m", Time(IDLE);
        /// Rooms with more listeners than this are never served by the sender's own thread; 0 = none is.
        ///
        /// Bounds the work of a sender even where sending is cheap.
        inline_max_listeners: usize = 64, Count(0..=COUNT_MAX);
        /// Longest time the sender's own thread is expected to take for all listeners of a room.
        ///
        /// Several times the time to wake the worker, and too short for a sender to notice.
        inline_max_cost: Duration = "200us", Time(COST);
        /// Rooms with fewer listeners than this are never split over all cores; more than `inline_max_listeners`.
        ///
        /// Sending to fewer is done sooner than the work is split.
        parallel_min_listeners: usize = 256, Count(1..=COUNT_MAX);
        /// Time one thread is expected to take from which on the listeners are split over all cores.
        ///
        /// Below, nobody waits long for one thread, and one thread uses less of the processor.
        parallel_min_cost: Duration = "16ms", Time(COST);
        /// Threads that serve resumes and slow listeners from the database.
        catch_up_workers: usize = 2, Count(1..=256);
    }
}

settings! {
    /// How fast clients may do things, except in open mode: `[limits]`. 0 is no limit.
    pub struct Limits from RawLimits in "limits" {
        /// Messages one user may publish per second, over all connections; five times as many at once.
        ///
        /// A game that sends 30 a second from three devices stays below it, and people do by far.
        user_publishes_per_second_max: usize = 100, Count(0..=COUNT_MAX);
        /// Bytes of these messages per second; five times as many at once.
        user_bytes_per_second_max: usize = "512KiB", Bytes(0..=BYTES_MAX);
        /// Rooms one user may create per minute, by the first message.
        user_new_rooms_per_minute_max: usize = 60, Count(0..=COUNT_MAX);
        /// Contacts one user may add per minute.
        user_contacts_per_minute_max: usize = 60, Count(0..=COUNT_MAX);
        /// Messages in one room per second, whoever publishes them; five times as many at once.
        ///
        /// A game of 60 players who send 30 a second; nobody reads so many.
        room_publishes_per_second_max: usize = 2000, Count(0..=COUNT_MAX);
        /// Bytes of these messages per second; five times as many at once.
        room_bytes_per_second_max: usize = "4MiB", Bytes(0..=BYTES_MAX);
        /// Questions of one connection per second: history, presence, contacts, unread rooms, read positions; five times as many at once.
        ///
        /// One history and one presence for each of 128 rooms after a reconnect are 256.
        connection_requests_per_second_max: usize = 100, Count(0..=COUNT_MAX);
        /// Tokens from one address per minute that are no good, before others from there are refused unseen.
        ///
        /// A whole office whose tokens were signed with an old secret; tokens past their time do not count.
        address_failed_tokens_per_minute_max: usize = 600, Count(0..=COUNT_MAX);
        /// Wrong keys of the HTTP API from one address per minute, before the next are answered by 429; the right one never is.
        ///
        /// A person who tries, and backends that have not been told the new key yet.
        address_failed_keys_per_minute_max: usize = 60, Count(0..=COUNT_MAX);
        /// Clients of one address that may connect per minute; as many at once.
        ///
        /// As many as `address_sockets_max` allows, three times.
        address_connects_per_minute_max: usize = 6000, Count(0..=COUNT_MAX);
    }
}

settings! {
    /// Logs of the server: `[log]`.
    pub struct Log from RawLog in "log" {
        /// Level, or levels per module, such as `info`, `warn` or `info,roomcast=debug`.
        filter: String = "info", Filter;
        /// One JSON object a line instead of text for people.
        json: bool = false, Switch;
    }
}

settings! {
    /// Options of the rooms that share a name prefix: `[default_namespace]` and `[namespace.NAME]`.
    pub struct Namespace from RawNamespace in "default_namespace" {
        /// Messages are stored and numbered; false: they are only passed on, and slow listeners miss some.
        persist: bool = true, Switch;
        /// Newest messages that stay readable; 0 = all.
        ///
        /// The end of the range is the largest whole number of a JavaScript client.
        history_size: u64 = 0, Count(0..=1 << 53);
        /// Age after which messages are no longer readable; `0s` = never.
        history_ttl: Option<Duration> = "0s", TimeOrNone(AGE);
        /// Presence can be asked for.
        presence: bool = true, Switch;
        /// Joins and leaves are pushed to the listeners of small rooms.
        join_leave: bool = true, Switch;
        /// Rooms with more listeners than this push no joins and leaves.
        ///
        /// Each join costs a push to every listener.
        join_leave_max_listeners: usize = 100, Count(0..=COUNT_MAX);
        /// Rooms with more listeners than this answer presence with counts, without the list.
        ///
        /// A list of this many clients still fits into a frame.
        presence_max_listeners: usize = 1000, Count(0..=COUNT_MAX);
        /// Every user is subscribed by the server to the personal channel, `#USER` here or `NAME:#USER`, at connect.
        personal: bool = false, Switch;
        /// Subscribing needs a subscription token, and everything else a subscription.
        token_required: bool = false, Switch;
        /// A room is created with its first message; false: only through the API.
        auto_create: bool = true, Switch;
        /// Clients that may subscribe: `nobody`, `members`, `users` or `everyone`.
        subscribe: Audience = "everyone", OneOf;
        /// Clients that may publish.
        publish: Audience = "subscribers", OneOf;
        /// Clients that may read presence.
        read_presence: Audience = "subscribers", OneOf;
        /// Clients that may read history, and recover by it.
        read_history: Audience = "subscribers", OneOf;
        /// Delivery: `auto` (the cheapest way, see `[rooms]`), `inline`, `worker` or `parallel`.
        strategy: Delivery = "auto", OneOf;
        /// Payloads: `json`, or `binary` for any bytes, which only clients that speak Protobuf can listen to.
        payload: PayloadKind = "json", OneOf;
        /// Largest message: its payload, tags and the `info` of its sender together.
        ///
        /// A long text many times over; files belong elsewhere. The end of the range is a frame of 1 MiB.
        message_bytes_max: usize = "64KiB", Bytes(1..=MESSAGE_BYTES_MAX as u64);
    } and {
        /// The part of the room's name before `:`; empty for the default namespace.
        name: String;
    }
}
