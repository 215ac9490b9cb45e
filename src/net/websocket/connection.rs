//! The reader thread of one WebSocket, from the upgrade to the end.
//!
//! It works in turns: it waits for a frame, takes whatever else its socket already holds, and only
//! then commits and answers. Its read timeout is the clock for pings and expiries. Every wait ends at the
//! next of its deadlines, and a turn that panics ends the connection like any other.

use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

use super::stream::SocketStream;
use super::timers::{Due, Timers};
use crate::limits::{CLOSE_REASON_BYTES_MAX, CONNECT_MESSAGE_BYTES_MAX, TURN_BYTES_MAX, TURN_COMMANDS_MAX};
use crate::net::client_rules::ClientRules;
use crate::net::http::is_timeout;
use crate::net::session::{Flow, Session};
use crate::net::sockets::ConnectionPermit;
use crate::node::NodeHandle;
use crate::outbox::{Ended, Outbox, frame};
use crate::protocol::code::CloseCode;
use crate::protocol::push;

/// Read buffer of a connection: allocated at once, so small; a chat command fits several times.
const READ_BUFFER_BYTES: usize = 1024;

/// Time a client has to close its side after the server closed.
const GOODBYE: Duration = Duration::from_secs(5);

/// Serves a WebSocket until it ends. `early` are bytes that came behind the upgrade request.
pub(in crate::net) fn serve(
    socket: &Arc<TcpStream>,
    early: Vec<u8>,
    permit: &ConnectionPermit,
    node: &Arc<NodeHandle>,
    rules: &Arc<ClientRules>,
) {
    let client = &rules.client;
    let Ok(outbox) = node.outbox_for_socket(permit.id(), socket.clone()) else {
        return; // The client is gone already.
    };
    permit.upgraded(&outbox);
    let message_bytes_max = client.message_bytes_max.min(CONNECT_MESSAGE_BYTES_MAX);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    let stream = SocketStream::new(outbox.clone(), &early);
    let mut connection = Connection {
        websocket: WebSocketContext::from_partially_read(early, Role::Server, Some(config)),
        stream,
        timers: Timers::new(
            Instant::now(),
            client.connect_timeout,
            client.ping_interval,
            client.pong_timeout,
        ),
        session: Session::new(outbox.clone(), node.clone(), rules.clone()),
        outbox,
        node: node.clone(),
        rules: rules.clone(),
    };
    // However this ends, the socket is shut, which gives its file back.
    let _abort = AbortAtEnd(connection.outbox.clone());
    if catch_unwind(AssertUnwindSafe(|| connection.run())).is_err() {
        connection.on_panic();
    }
    if catch_unwind(AssertUnwindSafe(|| connection.end())).is_err() {
        connection.node.metrics().reader_panics_total.inc();
    }
}

struct Connection {
    websocket: WebSocketContext,
    stream: SocketStream,
    timers: Timers,
    session: Session,
    outbox: Arc<Outbox>,
    node: Arc<NodeHandle>,
    rules: Arc<ClientRules>,
}

/// The end of reading.
enum Stop {
    /// Nothing more for now.
    Idle,
    /// The connection is over, or is to be closed with this code.
    End(Option<CloseFrame>),
    /// Connect was refused by a reply; the client is to close the connection.
    Refused,
}

/// A close frame to send: one of the protocol's, or one of WebSocket's own.
#[derive(Clone, Copy)]
struct CloseFrame {
    code: u16,
    reason: &'static str,
    /// Label of the metric for broken input.
    kind: Option<&'static str>,
}

impl From<CloseCode> for CloseFrame {
    fn from(code: CloseCode) -> Self {
        Self { code: code.number(), reason: code.as_str(), kind: None }
    }
}

/// Ends an outbox when it goes out of scope.
struct AbortAtEnd(Arc<Outbox>);

impl Drop for AbortAtEnd {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    fn run(&mut self) {
        while self.outbox.ended().is_none() {
            let stop = self.turn();
            self.session.end_turn();
            let stop = match stop {
                Stop::Idle => self.wait_for_capacity().err().unwrap_or(Stop::Idle),
                stop => stop,
            };
            match stop {
                Stop::Idle => {}
                Stop::End(close) => return close.into_iter().for_each(|close| self.close(close)),
                Stop::Refused => return self.await_close(),
            }
        }
    }

    /// Blocks while more than the budget is queued, so that a client that asks faster than it reads fills
    /// no memory; does what is due meanwhile.
    fn wait_for_capacity(&mut self) -> Result<(), Stop> {
        while !self.outbox.wait_for_capacity(self.timers.next()) {
            if let Some(due) = self.timers.due(Instant::now(), self.is_answerable()) {
                self.on_due(due)?;
            }
        }
        Ok(())
    }

    /// Waits for one frame, then takes all that has arrived.
    fn turn(&mut self) -> Stop {
        debug_assert!(self.stream.blocking, "a turn begins with a wait");
        if let Err(stop) = self.wait() {
            return stop;
        }
        self.stream.blocking = false;
        let mut bytes = 0;
        let mut frames = 1;
        let stop = loop {
            if frames >= TURN_COMMANDS_MAX || bytes >= TURN_BYTES_MAX || self.session.is_turn_full() {
                break Stop::Idle;
            }
            match self.read() {
                Ok(length) => bytes += length,
                Err(stop) => break stop,
            }
            frames += 1;
        };
        self.stream.blocking = true;
        stop
    }

    /// Blocks for the next frame and handles it; does what is due while none comes.
    fn wait(&mut self) -> Result<(), Stop> {
        loop {
            let now = Instant::now();
            match self.timers.due(now, self.is_answerable()) {
                // While this thread waited for the database, the pong may have come.
                Some(Due::NoPong) if self.read_waiting()? => return Ok(()),
                Some(due) => {
                    self.on_due(due)?;
                    continue;
                }
                None => {}
            }
            if self.stream.is_overdue(now) {
                return Err(Stop::End(Some(CloseCode::Slow.into())));
            }
            self.stream.deadline = self.timers.next();
            match self.read() {
                Ok(_) => return Ok(()),
                Err(Stop::Idle) => {}
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Handles one message if the socket holds one already; false if it holds none.
    fn read_waiting(&mut self) -> Result<bool, Stop> {
        debug_assert!(self.stream.blocking, "only a thread that would wait looks whether it has to");
        self.stream.blocking = false;
        // What is due has been told; what came before it counts.
        self.stream.deadline = None;
        let read = self.read();
        self.stream.blocking = true;
        match read {
            Ok(_) => Ok(true),
            Err(Stop::Idle) => Ok(false),
            Err(stop) => Err(stop),
        }
    }

    /// Reads and handles one message; its length.
    fn read(&mut self) -> Result<usize, Stop> {
        match self.websocket.read(&mut self.stream) {
            Ok(Message::Text(text)) => {
                self.on_text(text.as_str())?;
                Ok(text.len())
            }
            Ok(Message::Binary(_)) => {
                Err(Stop::End(Some(CloseFrame { kind: Some("binary"), ..CloseCode::BadRequest.into() })))
            }
            Ok(Message::Close(_)) => {
                // Hands over the answering close frame, which the client may wait for; that it
                // reports the end is no news.
                let _ = self.websocket.flush(&mut self.stream);
                Err(Stop::End(None))
            }
            Ok(message) => Ok(message.len()),
            Err(Error::Io(error)) if is_timeout(&error) => Err(Stop::Idle),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(Stop::End(answer_to(&error))),
        }
    }

    fn on_text(&mut self, text: &str) -> Result<(), Stop> {
        let was_connected = self.session.is_connected();
        let flow = self.session.on_text(text);
        debug_assert!(self.session.is_connected() || !was_connected, "a session stays connected to its end");
        if self.session.is_connected() && !was_connected {
            self.timers.connected(Instant::now(), self.session.spread());
            let message_bytes_max = Some(self.rules.client.message_bytes_max);
            self.websocket.set_config(|config| {
                config.max_message_size = message_bytes_max;
                config.max_frame_size = message_bytes_max;
            });
        }
        if self.session.take_pong() {
            self.timers.pong();
        }
        self.timers.set_expiry(self.session.next_expiry());
        self.follow(flow)
    }

    fn on_due(&mut self, due: Due) -> Result<(), Stop> {
        debug_assert_eq!(
            self.session.is_connected(),
            due != Due::NoConnect,
            "{due:?} is due before or after connect, never both"
        );
        match due {
            Due::Ping => {
                let _ = self.outbox.reply(&frame::text(push::PING));
                Ok(())
            }
            Due::NoPong => Err(Stop::End(Some(CloseCode::NoPong.into()))),
            Due::NoConnect => Err(Stop::End(Some(CloseCode::Stale.into()))),
            Due::Expiry => {
                let flow = self.session.on_expiry();
                self.timers.set_expiry(self.session.next_expiry());
                self.follow(flow)
            }
        }
    }

    fn follow(&mut self, flow: Flow) -> Result<(), Stop> {
        match flow {
            Flow::Continue => Ok(()),
            Flow::Disconnect(code) => Err(Stop::End(Some(code.into()))),
            Flow::Ended => Err(Stop::End(None)),
            Flow::Refused => Err(Stop::Refused),
        }
    }

    /// True while a missing pong means something: no frame is on its way ahead of the ping. A client that
    /// reads slowly gets the last frames long after the kernel took them; whether it is alive is
    /// decided by the stall timeout until then.
    fn is_answerable(&self) -> bool {
        !self.outbox.was_blocked_within(self.rules.client.stall_timeout)
    }

    /// Listens for nothing but the client's close frame, which it waits to be answered.
    fn await_close(&mut self) {
        self.stream.blocking = true;
        self.stream.deadline = Some(Instant::now() + GOODBYE);
        loop {
            match self.websocket.read(&mut self.stream) {
                Ok(Message::Close(_)) => {
                    let _ = self.websocket.flush(&mut self.stream);
                    return;
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn close(&self, close: CloseFrame) {
        debug_assert!(
            close.code >= 1000 && close.reason.len() <= CLOSE_REASON_BYTES_MAX,
            "{} {} fits no close frame",
            close.code,
            close.reason
        );
        if let Some(kind) = close.kind {
            self.node.metrics().bad_input_total.with_label_values(&[kind]).inc();
        }
        self.outbox.close(close.code, close.reason);
    }

    /// A turn panicked: nothing of it is carried on, and the client is told to come back.
    fn on_panic(&mut self) {
        self.node.metrics().reader_panics_total.inc();
        self.session.abandon_turn();
        self.close(CloseCode::InternalServerError.into());
    }

    /// Leaves every room, then gives the client time to take the last frames.
    fn end(&mut self) {
        self.session.leave_all();
        if let Some(socket) = self.outbox.socket() {
            self.outbox.wait_flushed(Instant::now() + self.rules.flush_grace);
            drain(socket, Instant::now() + GOODBYE);
        }
        let code = match self.outbox.ended() {
            Some(Ended::Closed(code)) => code,
            Some(Ended::Stalled) => CloseCode::Slow.number(),
            Some(Ended::Broken) | None => CloseCode::ConnectionClosed.number(),
        };
        self.node.metrics().disconnects_total.with_label_values(&[&code.to_string()]).inc();
    }
}

/// Reads what the client still sends until it closes, so that the kernel does not answer it with a
/// reset that could take the last frames from it.
fn drain(socket: &TcpStream, deadline: Instant) {
    let mut scrap = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match io::Read::read(&mut &*socket, &mut scrap) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// The close frame for input that tungstenite refused; `None` when the connection is just gone.
fn answer_to(error: &Error) -> Option<CloseFrame> {
    let close = |code, reason, kind| Some(CloseFrame { code, reason, kind: Some(kind) });
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => close(1009, "message too big", "too_big"),
        Error::Utf8(_) => close(1007, "invalid utf-8", "utf8"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => close(1002, "protocol error", "websocket"),
        _ => None,
    }
}
