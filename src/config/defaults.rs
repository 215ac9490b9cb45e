//! What holds when nobody says otherwise, with the reason where it is not plain.
//!
//! The table of keys in `raw` repeats each as text for people; a test keeps the two equal.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::{Audience, Delivery, Durability};

/// Loopback, so that a server without secrets is not reachable from elsewhere.
pub const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8000));
/// One per available core.
pub const WORKERS: usize = 0;
/// Well inside the ten seconds container runtimes wait before they kill.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// A file in the working directory.
pub const DATABASE_FILE: &str = "roomcast.db";
/// An acked message survives a power loss.
pub const DURABILITY: Durability = Durability::Full;
/// Readers wait for disks more than for processors, so a few more than cores.
pub const READ_CONNECTIONS: u32 = 4;
/// PostgreSQL commits in parallel; more lanes make smaller batches.
pub const COMMIT_LANES_POSTGRES: usize = 4;
/// SQLite has one writer.
pub const COMMIT_LANES_SQLITE: usize = 1;
/// Past this a larger batch gains nothing and makes its first message wait.
pub const BATCH_ROWS_MAX: usize = 1024;
/// Bounds the memory and the time of one commit when messages are large.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Tokens are asked for once there is a secret.
pub const INSECURE: bool = false;
/// A connection without a token is refused once there is a secret.
pub const ALLOW_ANONYMOUS: bool = false;
/// Shorter than the 30 s after which common proxies cut a quiet connection.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);
/// A mobile network wakes up within it.
pub const PONG_TIMEOUT: Duration = Duration::from_secs(8);
/// Some SDKs fetch their token between opening the socket and connecting.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// SDKs refresh at the moment of expiry and retry after 5 to 20 seconds.
pub const EXPIRED_CLOSE_DELAY: Duration = Duration::from_secs(25);
/// Subscriptions of one connection.
pub const CHANNELS_MAX: usize = 128;
/// SDKs put all subscribes of a reconnect, with tokens, into one message, and treat the close code
/// for "too large" as final.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// What a slow connection may cost before it is served from the database.
pub const OUTBOX_BYTES_MAX: usize = 256 * 1024;
/// A socket that takes no byte for this long has nobody behind it.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Far above what people type, below what would starve others.
pub const COMMANDS_PER_SECOND_MAX: u32 = 50_000;
/// 0: as many as the limits of the system allow.
pub const CONNECTIONS_MAX: usize = 0;

/// Long enough for a page reload or a short break to find the room in memory.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// What a sender pays stays bounded even where sending is cheap.
pub const INLINE_MAX_LISTENERS: usize = 64;
/// Several times what waking the worker takes, and still nothing that a sender would notice.
pub const INLINE_MAX_COST: Duration = Duration::from_micros(200);
/// Sending to fewer is done sooner than the work is split.
pub const PARALLEL_MIN_LISTENERS: usize = 256;
/// Below, nobody waits long for one thread, and one thread uses less of the processor.
pub const PARALLEL_MIN_COST: Duration = Duration::from_millis(16);
/// Threads for resumes and slow listeners.
pub const CATCH_UP_WORKERS: usize = 2;

/// A chat keeps its messages.
pub const PERSIST: bool = true;
/// 0: all messages stay readable.
pub const HISTORY_SIZE: u64 = 0;
/// Zero: messages stay readable for ever.
pub const HISTORY_TTL: Duration = Duration::ZERO;
/// Presence can be asked for.
pub const PRESENCE: bool = true;
/// Joins and leaves are pushed.
pub const JOIN_LEAVE: bool = true;
/// Each join costs a push to every listener, so only small rooms push them.
pub const JOIN_LEAVE_MAX_LISTENERS: usize = 100;
/// A list of this many clients still fits into a frame.
pub const PRESENCE_MAX_LISTENERS: usize = 1000;
/// No personal channels.
pub const PERSONAL: bool = false;
/// No subscription tokens.
pub const TOKEN_REQUIRED: bool = false;
/// A room comes into being with its first message.
pub const AUTO_CREATE: bool = true;
/// Whoever is let in may listen.
pub const SUBSCRIBE: Audience = Audience::Everyone;
/// Speaking needs listening.
pub const PUBLISH: Audience = Audience::Subscribers;
/// Seeing who is there needs being there.
pub const READ_PRESENCE: Audience = Audience::Subscribers;
/// Reading back needs listening.
pub const READ_HISTORY: Audience = Audience::Subscribers;
/// What a room costs decides.
pub const STRATEGY: Delivery = Delivery::Auto;
/// A long text many times over; files belong elsewhere.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Who may do anything in the rooms of two contacts.
pub const DIRECT_AUDIENCE: Audience = Audience::Members;
/// The rooms of two contacts come into being with the contact.
pub const DIRECT_AUTO_CREATE: bool = false;

/// Log filter.
pub const LOG_FILTER: &str = "info";
/// Text for people.
pub const LOG_JSON: bool = false;
