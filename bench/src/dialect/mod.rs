//! The protocols that servers can be measured in, by name.

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

pub(crate) use interface::{ClientState, Decoded, Dialect, Event, FIRST_PUBLISH_ID, Joined};

/// A protocol that the load generator speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DialectName {
    /// Roomcast's own, which is that of Centrifugo in JSON
    Centrifuge,
    /// A bare chat room: the path names the room, what one sends goes to all in it
    Plain,
    /// That of NATS, inside of WebSocket
    Nats,
    /// Nchan's `nchan_pubsub` location
    Nchan,
    /// That of Socket.IO 4
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
