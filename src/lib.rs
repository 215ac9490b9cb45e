//! Roomcast: a chat-room broadcast server and library.

#![allow(
    unreachable_pub,
    reason = "the modules are private; visibility inside them follows their own borders"
)]
#![cfg_attr(
    not(feature = "server"),
    allow(
        dead_code,
        unused_imports,
        reason = "the node has more than it uses by itself: the server asks for it"
    )
)]

pub mod config;

#[cfg(feature = "server")]
#[doc(hidden)]
pub mod cli;
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
mod sync;

pub use config::Config;
pub use ids::{Channel, ChannelError, Seq};
pub use metrics::Metrics;
#[cfg(feature = "server")]
pub use net::Capacity;
pub use node::{Ended, Node, PublishError, StartError, SubscribeError, Subscription};
pub use publication::{ClientInfo, Publication};
#[cfg(feature = "server")]
pub use server::Server;
pub use store::{AppendError, OpenError};

/// Parts that the tests and benchmarks of this repository take by themselves. Not part of the
/// library: anything here may change in any version.
#[doc(hidden)]
pub mod internals {
    pub use crate::config::keys;
    pub use crate::engine::{Answer, Engine, EngineParts, Extra, JoinRequest, Listener, Log, LogUnavailable};
    pub use crate::ids::ConnectionId;
    pub use crate::limits::{PAGE_BYTES_MAX, PAGE_PUBLICATIONS_MAX, PRUNE_ROWS_PER_STEP, READER_STACK_BYTES};
    pub use crate::outbox::{Drainer, Outbox, Push};
    pub use crate::protocol::code::ErrorCode;
    pub use crate::protocol::command::decode_frame;
    pub use crate::protocol::reply::{ConnectResult, SubscribeResult};
    pub use crate::publication::Retention;
    pub use crate::store::{
        Appended, CommitSink, Health, HistoryLimit, HistoryQuery, NewMessage, PruneWalk, Role, RoomKind,
        Store, StoreError,
    };

    /// WebSocket frames.
    pub mod frame {
        pub use crate::outbox::frame::{LineFrames, text};
    }

    /// Lines that the server sends by itself.
    pub mod push {
        pub use crate::protocol::push::publication;
    }

    /// Lines that answer a command.
    pub mod reply {
        pub use crate::protocol::reply::{connect, error, publish, subscribe};
    }
}
