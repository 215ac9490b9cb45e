//! One listener: a non-blocking socket, the bytes that are not used up yet in each
//! direction, and how far it has come in being subscribed.

use crate::dialect::{Dialect, Event, Outcome};
use crate::websocket::{self, CLOSE, CONTINUATION, PING, PONG};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

/// Source addresses the connections are spread over: one has some 28,000 ports, and
/// those of the scenario before may still be in TIME_WAIT.
const SOURCES: usize = 8;

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Handshake,
    /// The WebSocket is open, the subscription is not.
    Opening,
    Ready,
    Closed,
}

pub(crate) struct Connection {
    socket: TcpStream,
    pub(crate) room: String,
    phase: Phase,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// The fragments of a message before its last one.
    fragments: Vec<u8>,
    /// The dialect's.
    kept: Vec<u8>,
    /// What the kernel has not taken yet.
    unsent: Vec<u8>,
}

/// What all connections share, so that one of them costs little.
pub(crate) struct Scratch {
    read: Vec<u8>,
    pub(crate) outcome: Outcome,
    payload: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { read: vec![0; 256 << 10], outcome: Outcome::default(), payload: Vec::new() }
    }
}

impl Connection {
    pub(crate) fn open(
        number: usize,
        address: SocketAddr,
        room: String,
        dialect: &dyn Dialect,
        registry: &Registry,
    ) -> io::Result<Self> {
        let mut socket = connect(number, address)?;
        registry.register(&mut socket, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let unsent = websocket::request(&address.to_string(), &dialect.path(&room), dialect.subprotocol());
        Ok(Self {
            socket,
            room,
            phase: Phase::Handshake,
            partial: Vec::new(),
            fragments: Vec::new(),
            kept: Vec::new(),
            unsent,
        })
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    pub(crate) fn close(&mut self) {
        self.phase = Phase::Closed;
        // It may be gone already, which is as well.
        drop(self.socket.shutdown(std::net::Shutdown::Both));
    }

    /// Reads all there is; what it means is left in the outcome of `scratch`.
    pub(crate) fn readable(&mut self, dialect: &dyn Dialect, scratch: &mut Scratch) -> io::Result<()> {
        while !self.is_closed() {
            match self.socket.read(&mut scratch.read) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let read = std::mem::take(&mut scratch.read);
                    let used = self.bytes(dialect, &read[..count], &mut scratch.outcome);
                    let full = count == read.len();
                    scratch.read = read;
                    used?;
                    // Less than there was room for was all there is; more raises a new event.
                    if !full {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }

    /// Sends what is to be sent as far as the kernel takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Before the connection stands.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) fn publish(
        &mut self,
        dialect: &dyn Dialect,
        number: u32,
        data: &[u8],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        scratch.payload.clear();
        dialect.publish(&self.room, number, data, &mut scratch.payload);
        websocket::frame(&mut self.unsent, dialect.opcode(), &scratch.payload);
        self.flush()
    }

    fn bytes(&mut self, dialect: &dyn Dialect, read: &[u8], outcome: &mut Outcome) -> io::Result<()> {
        if self.partial.is_empty() {
            let used = self.consume(dialect, read, outcome)?;
            self.partial.extend_from_slice(&read[used..]);
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(read);
        let used = self.consume(dialect, &bytes, outcome)?;
        bytes.drain(..used);
        self.partial = bytes;
        Ok(())
    }

    fn consume(&mut self, dialect: &dyn Dialect, bytes: &[u8], outcome: &mut Outcome) -> io::Result<usize> {
        let mut used = 0;
        if self.phase == Phase::Handshake {
            let Some(length) = websocket::response(bytes)? else { return Ok(0) };
            used = length;
            self.phase = Phase::Opening;
            dialect.opened(&self.room, outcome);
            self.settle(dialect, outcome);
        }
        while let Some(frame) = websocket::parse(&bytes[used..])? {
            used += frame.length;
            self.frame(dialect, &frame, outcome)?;
            self.settle(dialect, outcome);
        }
        Ok(used)
    }

    fn frame(
        &mut self,
        dialect: &dyn Dialect,
        frame: &websocket::Frame<'_>,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        match frame.opcode {
            PING => websocket::frame(&mut self.unsent, PONG, frame.payload),
            PONG => {}
            CLOSE => return Err(closed_by(frame.payload)),
            opcode if frame.last && opcode != CONTINUATION => {
                dialect.received(&self.room, &mut self.kept, frame.payload, outcome);
            }
            _ => {
                self.fragments.extend_from_slice(frame.payload);
                if frame.last {
                    let message = std::mem::take(&mut self.fragments);
                    dialect.received(&self.room, &mut self.kept, &message, outcome);
                }
            }
        }
        Ok(())
    }

    /// Queues the replies of the dialect and notes that the subscription stands.
    fn settle(&mut self, dialect: &dyn Dialect, outcome: &mut Outcome) {
        for reply in outcome.replies.drain(..) {
            websocket::frame(&mut self.unsent, dialect.opcode(), &reply);
        }
        if self.phase == Phase::Opening && outcome.events.contains(&Event::Ready) {
            self.phase = Phase::Ready;
        }
    }
}

fn connect(number: usize, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv4() {
        let source = Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        // EINPROGRESS has no kind of its own that is stable.
        Err(error) if error.raw_os_error() == Some(115) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

fn closed_by(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
    io::Error::other(format!("the server closed: {code} {reason}"))
}
