//! The protocols that the load generator speaks, by name.

mod centrifuge;
mod interface;
mod nats;
mod plain;
mod socketio;

use clap::ValueEnum;
use serde::Serialize;

use centrifuge::Centrifuge;
use nats::Nats;
use plain::Plain;
use socketio::SocketIo;

pub(crate) use centrifuge::is_limit;
pub(crate) use interface::{ClientState, Decoded, Dialect, Event, FIRST_PUBLISH_ID, Joined};

/// A protocol that the load generator speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DialectName {
    /// Roomcast's own: Centrifugo's JSON protocol
    Centrifuge,
    /// Minimal chat: the URL path names the room, and each message goes to all of its members
    Plain,
    /// NATS over WebSocket
    Nats,
    /// An `nchan_pubsub` location of Nchan
    Nchan,
    /// Socket.IO 4 over WebSocket
    Socketio,
}

impl DialectName {
    /// The dialect, for a server whose WebSocket is at `path`, where every client has this token.
    pub(crate) fn dialect(self, path: &str, token: Option<&str>) -> Box<dyn Dialect> {
        match self {
            Self::Centrifuge => Box::new(Centrifuge::new(path, token)),
            Self::Nats => Box::new(Nats::new()),
            Self::Socketio => Box::new(SocketIo::new()),
            Self::Plain | Self::Nchan => Box::new(Plain::new()),
        }
    }
}
