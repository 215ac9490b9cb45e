//! How each server is spoken to. A dialect says where a listener of a room connects,
//! what it sends to be subscribed, how a message is published, and what the frames it
//! gets back mean. Everything else is the same for all of them.

mod nats;
mod nchan;
mod plain;
mod roomcast;
mod socketio;

use crate::payload::Stamp;
use crate::websocket::TEXT;

/// What a frame told.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// The listener gets the messages of its room from now on.
    Ready,
    /// A message of the room.
    Delivery(Stamp),
    /// The server has accepted the oldest publication that it has not accepted yet.
    Ack,
    /// The server said no; the text is for the person who reads the output.
    Refused(String),
}

/// What a frame led to, reused from one to the next.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) events: Vec<Event>,
    /// Frames to send.
    pub(crate) replies: Vec<Vec<u8>>,
}

impl Outcome {
    fn reply(&mut self, frame: impl Into<Vec<u8>>) {
        self.replies.push(frame.into());
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

pub(crate) trait Dialect {
    /// Path of the WebSocket handshake of a listener of this room.
    fn path(&self, room: &str) -> String;

    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    fn opcode(&self) -> u8 {
        TEXT
    }

    /// Whether a publication is answered besides being delivered to its sender.
    fn acks(&self) -> bool;

    /// The WebSocket is open.
    fn opened(&self, room: &str, outcome: &mut Outcome);

    /// A message came. `kept` is the connection's, for servers whose frames do not end
    /// where their messages end.
    fn received(&self, room: &str, kept: &mut Vec<u8>, frame: &[u8], outcome: &mut Outcome);

    /// Writes the frame that publishes `data` as the connection's publication `number`.
    fn publish(&self, room: &str, number: u32, data: &[u8], frame: &mut Vec<u8>);
}

pub(crate) fn of_name(name: &str) -> Result<Box<dyn Dialect>, String> {
    Ok(match name {
        "roomcast" => Box::new(roomcast::Roomcast),
        "plain" => Box::new(plain::Plain),
        "socketio" => Box::new(socketio::SocketIo),
        "nats" => Box::new(nats::Nats),
        "nchan" => Box::new(nchan::Nchan),
        _ => return Err(format!("--dialect {name}: there is none of this name")),
    })
}

/// The message in a frame that holds nothing else.
fn delivery(frame: &[u8], outcome: &mut Outcome) {
    if let Some(stamp) = crate::payload::read(frame) {
        outcome.event(Event::Delivery(stamp));
    }
}

fn refused(frame: &[u8]) -> Event {
    Event::Refused(String::from_utf8_lossy(&frame[..frame.len().min(200)]).into_owned())
}
