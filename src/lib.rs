//! Roomcast: a chat-room broadcast server and library. Rooms and messages live in a SQL database, and a
//! message is committed before anybody sees it, except in namespaces that store nothing (`persist = false`).
//! No async runtime: threads, blocking reads, and one lock
//! per delivery.
//!
//! [`Node`] is the database and the engine without a network, for a program of your own; [`Server`] is a
//! node with sockets in front. Both take a [`Config`].
//!
//! ```
//! use roomcast::{Channel, Config, Node};
//!
//! # let folder = std::env::temp_dir().join(format!("roomcast-lib-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let mut config = Config::default();
//! config.database.url = format!("sqlite:{}/chat.db", folder.display()).parse()?;
//! let node = Node::open(&config)?;
//!
//! let lobby = Channel::new("lobby")?;
//! let mut listener = node.subscribe(&lobby, None)?;
//! let seq = node.publish(&lobby, r#"{"text":"hello"}"#)?;
//! assert_eq!(listener.recv()?.seq, seq);
//!
//! node.stop();
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The rest of this page is a map for those who work on Roomcast itself. `ARCHITECTURE.md` is the long form.
//!
//! # The way of a message
//!
//! ```text
//!   client                                                                        clients
//!     │ socket                                                                       ▲ sockets
//!     ▼                                                                              │ one send a turn
//!  ┌────────┐ request ┌──────┐ message ┌─────────────┐ batch ┌───────┐ turn ┌────────┴─┐ rest ┌─────────┐
//!  │ reader ├────────►│ node ├────────►│ commit lane ├──────►│ shard ├─────►│ outboxes ├─────►│ drainer │
//!  └────────┘         └──────┘         └──────┬──────┘       └─┬───▲─┘      └──────────┘      └─────────┘
//!     ▲ net/session     the door              │ store/lane     │   │ engine     outbox
//!     └───────── ack ─────────────────────────┤            full│   │level with the room
//!                                             ▼                ▼   │
//!                                        ┌─────────┐ pages ┌───────┴───────┐
//!                                        │ SQL log ├──────►│ catch-up pool │
//!                                        └─────────┘       └───────────────┘
//! ```
//!
//! 1. A reader thread takes a connection whose socket has bytes, and makes requests of the commands it holds
//!    (`net::readers`, `net::session`).
//! 2. The node checks the request: namespace, rights, size, payload (`node::publish`).
//! 3. The message waits in the commit lane of its channel; its connection is parked. One of the callers
//!    leads: it gives numbers, commits the batch, and answers the others (`store::lane`).
//! 4. Before it answers, the leader queues the batch at the shards of its rooms (`Engine::committed`,
//!    `engine::mailboxes`). A single message for a small room of an idle shard it delivers itself
//!    (`engine::shard::Owned`).
//! 5. The worker of a shard applies its queue in order. A room encodes each publication once and gives
//!    one buffer to each live member (`engine::shard`, `engine::room`, `engine::delivery`).
//! 6. The outbox sends at once, or queues within its byte budget; the drainer finishes what the kernel
//!    did not take (`outbox`). A member whose outbox is full is served from the log until it is level
//!    with its room again (`engine::catch_up`), as is everybody who resumes.
//!
//! # The modules, and the question each one answers
//!
//! A module uses only modules below it in this list; `tests/tidy/levels.rs` checks that, and that no file
//! lies in an import circle.
//!
//! | module | question |
//! |---|---|
//! | `cli` | What did a person type, what is printed, which exit code? |
//! | `server` | In which order do the parts start and stop? |
//! | `net` | What does a socket say: WebSocket, HTTP, sessions, the page? |
//! | `node` | What may be asked for, by whom, and what happens then? The one door. |
//! | `engine` | Who is in a room, what was each given, who delivers? |
//! | `store` | How do messages become durable and numbered, and how are they read back? |
//! | `outbox` | How do bytes reach one socket, in order, without blocking? |
//! | `protocol`, `auth` | What does a command mean, how is a reply written? Whose token is this? |
//! | `config`, `metrics` | What did the operator say, checked? What is counted? |
//! | `publication` | What is a committed message, and what does retention keep? |
//! | `ids`, `json` | What is a valid channel? Is this JSON that every client can read? |
//! | `limits`, `clock`, `sync` | Which bounds are fixed? What time is it? Which locks are used? |
//!
//! # Threads
//!
//! | name | owns alone | reached by |
//! |---|---|---|
//! | `acceptor` | the listening socket | a stop flag |
//! | `reader-N`, as many as wait for the database and a few | the connection whose turn it is | the poller |
//! | `deadlines` | the connection it looks at | the list of deadlines |
//! | `worker-N`, one per shard | nothing; takes the shard's lock each turn | the shard's queue |
//! | `catch-up-N` | the job it is at | a queue of jobs, one of look-ups, the drainer's notices |
//! | `fan-out-N`, one per core | nothing; shares the member list of a waiting room | a parallel fan-out |
//! | `drainer` | the poller | a list of blocked outboxes and a waker |
//! | `retention` | its walk over the rooms | a channel that closes |
//! | `store-foreign`, once a program published in a transaction of its own | nothing | a waker and a list of calls |
//! | `log`, in the program | standard error | the buffer of log lines |
//! | `subscription` | a [`Subscription`] of [`Subscription::for_each`] | its outbox |
//!
//! No thread commits: the leader of a lane is one of the threads that publish.
//!
//! # Lock order
//!
//! Downwards only: writer of a commit lane → shard → queue of a lane, catch-up pool → subscriptions of a
//! listener → outbox → list of the drainer, seats of connections → list of deadlines. No lock is held across SQL but a lane's writer, none across a
//! socket write but the outbox's own.
//!
//! # Invariants
//!
//! - A message is committed before its ack, its push or its place in the history.
//! - A lane has at most one leader; while rows wait, it has one or one is appointed.
//! - A room's publications reach its shard in the order of their seq.
//! - Commands are taken from a shard's queue to be applied only under the shard's lock.
//! - `delivered ≤ queued ≤ head` in each room; between fan-outs live members were given exactly what is
//!   `delivered`.
//! - A catch-up job has exactly one owner, and is never ahead of its room. So has a connection, and a wake-up
//!   of it leads to a turn that begins after it.
//! - Only the outbox writes to a WebSocket once it is one, and whole frames.
//!
//! # Where is …?
//!
//! | question | answer |
//! |---|---|
//! | a subscribe decided and answered | `engine::room::membership` (`answer`), `engine::join` (`succeed`, `fail`) |
//! | the tail of a room, and its lock | `engine::tail`, in a room of `engine::rooms`: the shard's lock |
//! | a rule for every message, for every listener | `node::publish` (`check_publish`), `node::subscribe` (`check_subscribe`) |
//! | a full outbox, and the way back | `engine::room::sending` (`start_catch_up`), `engine::catch_up`, `engine::room::membership` (`caught_up`) |
//! | the tests of a promise | `docs/reliability.md` |

#![cfg_attr(
    not(all(feature = "server", feature = "postgres", feature = "cli")),
    allow(
        dead_code,
        unused_imports,
        irrefutable_let_patterns,
        reason = "the node has more than it uses by itself: the server and the program ask for it"
    )
)]

pub mod config;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(all(feature = "server", any(test, feature = "fuzzing")))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
mod auth;
#[cfg(feature = "server")]
mod net;
mod node;

mod engine;
mod outbox;
mod store;

mod protocol;

mod publication;

mod ids;
mod json;
mod metrics;

mod clock;
mod limits;
#[cfg(test)]
mod mutation;
mod sync;

pub use config::Config;
pub use ids::{Channel, ChannelError, Seq};
pub use metrics::Metrics;
#[cfg(feature = "server")]
pub use net::Capacity;
pub use node::{
    Closer, Ended, Message, Node, Payload, Publications, PublishError, PublishInError, ReadError, StartError,
    SubscribeError, Subscription, Unfit, Unsent, User,
};
pub use publication::{ClientInfo, Content, Publication};
#[cfg(feature = "server")]
pub use server::Server;
pub use store::{AppendError, DatabaseConnection, OpenError};

/// Parts that the tests and benchmarks of this repository take by themselves. Not part of the
/// library: anything here may change in any version.
#[doc(hidden)]
pub mod internals {
    pub use crate::config::keys;
    pub use crate::engine::{Answer, Engine, EngineParts, Extra, JoinRequest, Listener, Log, LogUnavailable};
    pub use crate::ids::ConnectionId;
    pub use crate::limits::{PAGE_BYTES_MAX, PAGE_PUBLICATIONS_MAX, READER_STACK_BYTES};
    pub use crate::outbox::{Drainer, Outbox, Packet, Push};
    pub use crate::protocol::code::ErrorCode;
    pub use crate::protocol::command::decode_frame;
    pub use crate::protocol::format::{Format, PerFormat};
    pub use crate::protocol::message::Message;
    pub use crate::protocol::reply::{ConnectResult, Reply, SubscribeResult};
    pub use crate::publication::Retention;
    pub use crate::store::{
        Appended, CommitSink, Fork, Health, HistoryLimit, HistoryQuery, NewMessage, Outage, PruneWalk, Role,
        RoomKind, Store, StoreError,
    };

    /// WebSocket frames.
    pub mod frame {
        pub use crate::outbox::frame::{Frames, message, text};
    }

    /// The push of a publication.
    pub use crate::protocol::push::Push as PushMessage;
}
