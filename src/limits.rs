//! The fixed upper bounds that concern more than one file, each with its unit and its reason.
//!
//! Bounds an operator may change live in `config`; these are the ones nobody needs to.

use std::time::Duration;

/// Longest channel name in bytes; what the SDKs assume (protocol notes §6).
pub(crate) const CHANNEL_BYTES_MAX: usize = 255;

/// Longest user id in bytes; keeps index entries and frames small.
pub(crate) const USER_ID_BYTES_MAX: usize = 255;

/// Longest idempotency key of a publish, in bytes; a UUID or a hash fits several times.
pub(crate) const PUBLISH_KEY_BYTES_MAX: usize = 128;

/// Longest JSON the backend may attach to a connection or a subscription, in bytes: it is kept per
/// connection and repeated in every publication.
pub(crate) const INFO_BYTES_MAX: usize = 4 * 1024;

/// Deepest nesting of arrays and objects in a payload: some client parsers recurse and fail on more.
pub(crate) const JSON_DEPTH_MAX: usize = 128;

/// Longest number in a payload, in bytes as written: Python refuses integers of more than 4,300
/// digits, and its SDK stops reading when it cannot parse a message.
pub(crate) const JSON_NUMBER_BYTES_MAX: usize = 1024;

/// Most digits of the exponent of a number in a payload: PostgreSQL's `jsonb` takes numbers of up to 131,072 digits
/// before the point and 16,383 behind it, and many parsers far smaller ones.
pub(crate) const JSON_EXPONENT_DIGITS_MAX: usize = 4;

/// Largest text frame the server sends when it may split, in bytes. Older Python SDKs close the
/// connection on frames over 1 MiB.
pub(crate) const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Most publications returned by one history command or subscribe reply; what the reference server
/// caps clients at. The rest of a resume is streamed.
pub const PAGE_PUBLICATIONS_MAX: usize = 300;

/// Most bytes of the publications in one page, as JSON with all that belongs to them; a larger one stands alone.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Largest frame that any client has to take, in bytes: older Python SDKs close the connection beyond it.
pub(crate) const ANY_FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Most that an operator may allow for one message, in bytes: with names and ids around it, it fits the largest
/// frame.
pub(crate) const MESSAGE_BYTES_MAX: usize = ANY_FRAME_BYTES_MAX - 16 * 1024;

/// Longest reason of a close frame, in bytes: a control frame holds 125 (RFC 6455 §5.5), two are the code.
pub(crate) const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Longest message of a client that is not connected, in bytes: a token, and the positions of a hundred
/// server-side subscriptions.
pub(crate) const CONNECT_MESSAGE_BYTES_MAX: usize = 24 * 1024;

/// Most bytes kept of a message of a client that is not connected: the longest one, and what its pieces add.
pub(crate) const STRANGER_MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// Time a client has for one message, from its first byte to its last: 9 KB/s for the largest that is
/// allowed by default.
pub(crate) const MESSAGE_DEADLINE: Duration = Duration::from_secs(60);

/// Refusals for haste (error 111) of one connection per second, and twice as many after a pause, beyond which it is
/// closed: ten times what a user may publish by default. An honest client meets a few.
pub(crate) const REFUSALS_PER_SECOND_MAX: u64 = 1000;

/// Commands taken from one socket before their replies are written.
pub(crate) const TURN_COMMANDS_MAX: usize = 1024;

/// Payload bytes taken from one socket before their replies are written.
pub(crate) const TURN_BYTES_MAX: usize = 1024 * 1024;

/// Commands waiting for one shard; a full queue slows the committing threads down, which is the
/// back-pressure that keeps memory bounded.
pub(crate) const SHARD_QUEUE_MAX: usize = 4096;

/// Publications kept in memory per active room, and their payload bytes: enough for a reconnect
/// storm, small enough for many rooms.
pub(crate) const TAIL_PUBLICATIONS_MAX: usize = 256;

/// See [`TAIL_PUBLICATIONS_MAX`].
pub(crate) const TAIL_BYTES_MAX: usize = 128 * 1024;

/// Publications in one block of the page cache. Blocks start at multiples of it, so that clients
/// that were lost at different moments share them.
pub(crate) const BLOCK_PUBLICATIONS: u64 = 256;

/// Payload bytes the page cache keeps over all rooms.
pub(crate) const PAGE_CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Publications of one commit that the thread which committed them may deliver itself: each goes to a small room,
/// and the next commit of its lane may wait for all of them.
pub(crate) const INLINE_PUBLICATIONS_MAX: usize = 8;

/// Commands a worker applies before it delivers what they brought.
pub(crate) const SHARD_TURN_COMMANDS_MAX: usize = 1024;

/// Joins that wait for the head of their room, over all connections: some seconds of look-ups, longer than
/// which SDKs do not wait. With so many waiting, a connection may have one.
pub(crate) const HEAD_LOOKUPS_MAX: usize = 128 * 1024;

/// Rooms a worker looks at for eviction in one turn, so that a mass eviction holds nobody up.
pub(crate) const EVICTIONS_PER_TURN_MAX: usize = 256;

/// Rooms of one shard for which the operator may name a strategy: more would be a matter for the
/// options of a namespace.
pub(crate) const STRATEGY_OVERRIDES_PER_SHARD_MAX: usize = 10_000;

/// Listeners that a worker serves of one large fan-out before other rooms of its shard get a turn.
pub(crate) const SLICE_LISTENERS: usize = 128;

/// Listeners that each thread of the pool serves of one large fan-out before other large ones get a turn:
/// some 7 ms. A slice ends with a wait for the slowest thread, so it is not shorter.
pub(crate) const POOL_SLICE_LISTENERS: usize = 1024;

/// Longest wait of a connection until it may query the database: whoever asks hears that it was in vain before it
/// gives up by itself, which SDKs do after five seconds.
pub(crate) const QUERY_WAIT: Duration = Duration::from_secs(3);

/// Longest time from the moment a request would have queried the database until it is answered: what it waited before
/// is missing at the end.
pub(crate) const QUERY_ANSWER_MAX: Duration = Duration::from_millis(3_500);

/// Largest HTTP head in bytes; the common limit of web servers.
pub(crate) const HTTP_HEAD_BYTES_MAX: usize = 8 * 1024;

/// Most header lines in an HTTP head.
pub(crate) const HTTP_HEADERS_MAX: usize = 64;

/// Time a client has for a whole HTTP head, however it trickles.
pub(crate) const HTTP_HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// The same for a socket in one of the last places, which others wait for.
pub(crate) const HTTP_RESERVE_HEAD_DEADLINE: Duration = Duration::from_secs(2);

/// Time a client has for a whole HTTP body.
pub(crate) const HTTP_BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Largest HTTP request body in bytes; a broadcast of one full-size message to thousands of channels.
pub(crate) const HTTP_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Longest line with the size of a chunk in an HTTP request body, extensions included, in bytes.
pub(crate) const HTTP_CHUNK_LINE_BYTES_MAX: usize = 256;

/// Idle time after which a kept-alive HTTP connection is closed.
pub(crate) const HTTP_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// HTTP requests answered on one socket before others get a turn.
pub(crate) const HTTP_REQUESTS_PER_TURN_MAX: usize = 16;

/// Stack of a reader thread. Only touched pages cost memory; SQLite and libpq calls
/// of a commit leader need the room.
pub const READER_STACK_BYTES: usize = 256 * 1024;

/// Most bytes of log lines that wait until standard error takes them: some 5,000 lines, a burst.
#[cfg(feature = "cli")]
pub(crate) const LOG_QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Longest time an operation of the store keeps its caller waiting; then it is answered with an error, whatever
/// becomes of it. SDKs give up after 5 s.
pub(crate) const STORE_ANSWER_MAX: Duration = Duration::from_secs(3);

/// Most entries of a page of a list: contacts, members, unread rooms, listeners, channels.
pub(crate) const LIST_ENTRIES_MAX: usize = 1000;

/// Most channels of one broadcast: some seconds of commits, in turns with those of others.
pub(crate) const BROADCAST_CHANNELS_MAX: usize = 100_000;

/// Most refused channels that the summary of a large broadcast names.
pub(crate) const BROADCAST_ERRORS_MAX: usize = 1000;

const _: () = assert!(QUERY_WAIT.as_millis() < QUERY_ANSWER_MAX.as_millis());
const _: () = assert!(STORE_ANSWER_MAX.as_millis() < QUERY_ANSWER_MAX.as_millis());
const _: () = assert!(PAGE_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX + 3 * CHANNEL_BYTES_MAX + INFO_BYTES_MAX < ANY_FRAME_BYTES_MAX);
const _: () = assert!(TAIL_PUBLICATIONS_MAX <= PAGE_PUBLICATIONS_MAX);
const _: () = assert!(BLOCK_PUBLICATIONS as usize <= PAGE_PUBLICATIONS_MAX);
