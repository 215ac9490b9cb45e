//! One client's WebSocket: how far it has come, and the messages in what it reads.

use std::io;
use std::time::SystemTime;

use mio::net::TcpStream;

use crate::clients::Client;
use crate::dialect::{ClientState, Decoded, Dialect};
use crate::listener::Listener;
use crate::plan::Plan;
use crate::socket::Socket;
use crate::websocket::{self, Frame};

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for the answer to the handshake.
    Handshake,
    /// The WebSocket is open, and the server has not said yet that all is ready.
    Joining,
    Ready,
    /// Cut off; it will be back.
    Disconnected,
    Closed,
}

/// A client of the server: its socket, how far it has come, and what it is for.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    pub(crate) stage: Stage,
    /// What it got, if it listens.
    pub(crate) listener: Option<Listener>,
    /// Index of its publisher in the thread, if it publishes.
    pub(crate) publisher: Option<usize>,
    /// Name of the room it listens to.
    room: Option<String>,
    /// Bytes read that are no whole frame yet.
    input: Vec<u8>,
    /// The begin of a message that comes in several frames.
    partial: Vec<u8>,
    /// The begin of what the dialect has to see whole to decode it.
    undecoded: Vec<u8>,
}

impl Connection {
    /// Begins to connect a client.
    pub(crate) fn open(plan: &Plan, client: &Client, dialect: &dyn Dialect) -> io::Result<Self> {
        let mut connection = Self {
            socket: Socket::open(plan.address, client.number)?,
            stage: Stage::Handshake,
            listener: client.room.map(|room| Listener::new(client.group, room)),
            publisher: None,
            room: client.room.map(|room| plan.room(client.group, room)),
            input: Vec::new(),
            partial: Vec::new(),
            undecoded: Vec::new(),
        };
        connection.request(plan, dialect);
        Ok(connection)
    }

    /// Begins to connect again, as the `number`th connection; what it got stays.
    pub(crate) fn reopen(&mut self, plan: &Plan, number: usize, dialect: &dyn Dialect) -> io::Result<()> {
        self.socket = Socket::open(plan.address, number)?;
        for bytes in [&mut self.input, &mut self.partial, &mut self.undecoded] {
            bytes.clear();
        }
        self.stage = Stage::Handshake;
        self.request(plan, dialect);
        Ok(())
    }

    fn request(&mut self, plan: &Plan, dialect: &dyn Dialect) {
        let path = dialect.path(&client_state(self.room.as_deref(), self.listener.as_ref()));
        websocket::request(self.socket.output(), &plan.host, &path);
    }

    /// For the poller.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        self.socket.stream()
    }

    /// Shuts the socket down.
    pub(crate) fn close(&mut self, stage: Stage) {
        self.stage = stage;
        self.socket.shut_down();
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.socket.is_full()
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, SystemTime)>> {
        self.socket.read(buffer)
    }

    /// Appends a message to what is to be sent.
    pub(crate) fn send(&mut self, opcode: u8, message: &[u8]) {
        websocket::frame(self.socket.output(), opcode, message);
    }

    /// Decodes what was read; the events are left in `decoded`, also when it ends in an error.
    pub(crate) fn process(
        &mut self,
        bytes: &[u8],
        dialect: &dyn Dialect,
        decoded: &mut Decoded,
    ) -> io::Result<()> {
        if self.input.is_empty() {
            let used = self.process_frames(bytes, dialect, decoded)?;
            self.input.extend_from_slice(&bytes[used..]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let used = self.process_frames(&input, dialect, decoded)?;
            input.drain(..used);
            self.input = input;
        }
        Ok(())
    }

    /// Decodes the whole frames at the front; returns how many bytes they were.
    fn process_frames(
        &mut self,
        bytes: &[u8],
        dialect: &dyn Dialect,
        decoded: &mut Decoded,
    ) -> io::Result<usize> {
        let mut used = 0;
        if self.stage == Stage::Handshake {
            let Some(length) = websocket::response(bytes)? else { return Ok(0) };
            used = length;
            self.stage = Stage::Joining;
            dialect.opened(&client_state(self.room.as_deref(), self.listener.as_ref()), decoded);
            self.send_replies(dialect, decoded);
        }
        while let Some(frame) = websocket::first_frame(&bytes[used..])? {
            used += frame.length;
            self.process_frame(&frame, dialect, decoded)?;
            self.send_replies(dialect, decoded);
        }
        Ok(used)
    }

    fn process_frame(
        &mut self,
        frame: &Frame<'_>,
        dialect: &dyn Dialect,
        decoded: &mut Decoded,
    ) -> io::Result<()> {
        let client = client_state(self.room.as_deref(), self.listener.as_ref());
        match frame.opcode {
            websocket::PING => websocket::pong(self.socket.output(), frame.payload),
            websocket::PONG => {}
            websocket::CLOSE => return Err(closed(frame.payload)),
            opcode if frame.is_last && opcode != websocket::CONTINUATION => {
                dialect.received(&client, &mut self.undecoded, frame.payload, decoded);
            }
            _ => {
                self.partial.extend_from_slice(frame.payload);
                if frame.is_last {
                    dialect.received(&client, &mut self.undecoded, &self.partial, decoded);
                    self.partial.clear();
                }
            }
        }
        Ok(())
    }

    fn send_replies(&mut self, dialect: &dyn Dialect, decoded: &mut Decoded) {
        for reply in decoded.replies.drain(..) {
            self.send(dialect.opcode(), &reply);
        }
    }
}

fn client_state<'a>(room: Option<&'a str>, listener: Option<&'a Listener>) -> ClientState<'a> {
    ClientState { room, position: listener.and_then(Listener::position) }
}

fn closed(payload: &[u8]) -> io::Error {
    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
    io::Error::other(format!("the server closed a connection: {reason}"))
}
