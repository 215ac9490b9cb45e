//! What the load generator has to know of a protocol to put load on a server that speaks it.

use std::fmt;

use crate::payload::Stamp;
use crate::websocket::TEXT;

/// Id of a publisher's first message; the ids before belong to what opens a connection.
pub(crate) const FIRST_PUBLISH_ID: u64 = 3;

/// How a server is spoken to: where a client connects, what it sends to hear a room, how it publishes, and
/// what the messages it gets back mean. Everything else is the same for all of them.
pub(crate) trait Dialect: fmt::Debug + Send {
    /// Path of the handshake.
    fn path(&self, client: &ClientState<'_>) -> String;

    /// Of the frames that are sent.
    fn opcode(&self) -> u8 {
        TEXT
    }

    /// Whether the server answers a publish, besides delivering it. If not, a message counts as accepted when
    /// its publisher gets its own copy.
    fn acknowledges(&self) -> bool;

    /// The WebSocket is open.
    fn opened(&self, client: &ClientState<'_>, decoded: &mut Decoded);

    /// A message came. `undecoded` belongs to the connection, for protocols whose messages may go
    /// over the end of a frame.
    fn received(
        &self,
        client: &ClientState<'_>,
        undecoded: &mut Vec<u8>,
        message: &[u8],
        decoded: &mut Decoded,
    );

    /// Appends what publishes `payload`; ids count from [`FIRST_PUBLISH_ID`] for each client.
    fn publish(&self, out: &mut Vec<u8>, id: u64, room: &str, payload: &[u8]);
}

/// The state of a client that its dialect depends on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClientState<'a> {
    /// The room it listens to; `None`: it only publishes.
    pub(crate) room: Option<&'a str>,
    /// Epoch and offset of the last message it has, when it comes back.
    pub(crate) position: Option<(&'a str, u64)>,
}

/// What a message of the server means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The client may publish, and gets the messages of its room from now on.
    Ready(Joined),
    /// A message of the room, with its offset if the server numbers them, and its stamp if it is ours.
    Delivery { offset: Option<u64>, stamp: Option<Stamp> },
    /// The server accepted the publish with this id, or says why not.
    Ack { id: u64, error: Option<String> },
    /// The server does not want the client; why.
    Refused(String),
}

/// Where a listener begins.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    /// Empty when the server does not tell positions.
    pub(crate) epoch: String,
    /// Of the room's last message.
    pub(crate) offset: u64,
    /// All since the position that was asked for is in `missed`.
    pub(crate) recovered: bool,
    /// Offsets of messages that came with the answer.
    pub(crate) missed: Vec<u64>,
}

/// What messages were decoded to; reused from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) events: Vec<Event>,
    /// Messages to send.
    pub(crate) replies: Vec<Vec<u8>>,
}

impl Decoded {
    pub(super) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn reply(&mut self, message: impl Into<Vec<u8>>) {
        self.replies.push(message.into());
    }
}
