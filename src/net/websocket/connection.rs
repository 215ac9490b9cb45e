//! One WebSocket, from the upgrade to its last command, served in turns.
//!
//! A turn takes what the socket holds, within bounds, and only then commits and answers. It waits for no peer:
//! a client that has not sent a whole message, or does not read what it asked for, is parked until its socket
//! or its outbox wakes it. Every duty has a deadline, looked at in each turn; a turn that panics ends the
//! connection like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::Utf8Bytes;
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::Message;

use super::input::Input;
use super::timers::{Due, Timers};
use crate::limits::{
    CLOSE_REASON_BYTES_MAX, CONNECT_MESSAGE_BYTES_MAX, STORE_ANSWER_MAX, STRANGER_MESSAGE_BYTES_MAX,
    TURN_COMMANDS_MAX,
};
use crate::net::client_rules::ClientRules;
use crate::net::ending::{Ending, GOODBYE};
use crate::net::peers::Peer;
use crate::net::queries::Queries;
use crate::net::rates::Who;
use crate::net::readers::{Next, Tick, Wait};
use crate::net::session::{Flow, Session};
use crate::node::NodeHandle;
use crate::outbox::{Ended, Outbox, Work, frame};
use crate::protocol;
use crate::protocol::code::CloseCode;
use crate::protocol::format::Frame;

/// Longest wait of an end for the acks before it. The store has answered by then, if only that it cannot.
const ACKS_WAIT: Duration = GOODBYE;
const _: () = assert!(ACKS_WAIT.as_millis() > STORE_ANSWER_MAX.as_millis());

/// An open WebSocket with its session.
#[derive(Debug)]
pub(in crate::net) struct WebSocket {
    input: Input,
    timers: Timers,
    session: Session,
    /// The rest of a frame whose replies the client has to read first.
    unread: Option<Message>,
    /// Since when nothing is read because the client does not take its replies, and until when it may.
    capacity_by: Option<Instant>,
    /// Connect was refused by a reply; until then the client may close the connection.
    refused_until: Option<Instant>,
    /// The end that waits for the acks before it.
    end: Option<End>,
    /// Until then it waits.
    end_by: Option<Instant>,
    outbox: Arc<Outbox>,
    node: Arc<NodeHandle>,
    rules: Arc<ClientRules>,
    has_left: bool,
}

/// The reason not to go on now.
enum Stop {
    /// The socket holds no whole message.
    Idle,
    /// The turn is full; there may be more.
    Full,
    /// The client has to read first.
    NoCapacity,
    /// The connection is to end.
    End(End),
    /// Connect was refused by a reply; the client is to close the connection.
    Refused,
}

/// The end of a connection.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The client is gone, or was told already.
    Silent,
    /// The client's close frame is to be answered.
    AnswerClose,
    /// To be closed with this frame.
    Close(CloseFrame),
}

/// A close frame to send: one of the protocol's, or one of WebSocket's own.
#[derive(Debug, Clone, Copy)]
struct CloseFrame {
    code: u16,
    reason: &'static str,
    /// Label of the metric for broken input.
    kind: Option<&'static str>,
}

const TOO_BIG: CloseFrame = CloseFrame { code: 1009, reason: "message too big", kind: Some("too_big") };

impl From<CloseCode> for CloseFrame {
    fn from(code: CloseCode) -> Self {
        Self { code: code.number(), reason: code.as_str(), kind: None }
    }
}

impl WebSocket {
    /// A socket that has just become a WebSocket. `early` are bytes that came behind the upgrade request.
    pub(in crate::net) fn new(
        outbox: Arc<Outbox>,
        early: Vec<u8>,
        node: &Arc<NodeHandle>,
        rules: &Arc<ClientRules>,
        queries: &Arc<Queries>,
        origin: Who,
    ) -> Self {
        let client = &rules.client;
        let message_bytes_max = client.message_bytes_max.min(CONNECT_MESSAGE_BYTES_MAX);
        Self {
            input: Input::new(outbox.clone(), early, message_bytes_max),
            timers: Timers::new(
                Instant::now(),
                client.connect_timeout,
                client.ping_interval,
                client.pong_timeout,
            ),
            session: Session::new(outbox.clone(), node.clone(), rules.clone(), queries.clone(), origin),
            unread: None,
            capacity_by: None,
            refused_until: None,
            end: None,
            end_by: None,
            outbox,
            node: node.clone(),
            rules: rules.clone(),
            has_left: false,
        }
    }

    /// One turn; `None` when the connection is to end, with its rooms left and its last frame queued.
    pub(in crate::net) fn turn(&mut self, peer: &mut Peer, stopping: bool) -> Option<Next> {
        if stopping && self.end.is_none() {
            self.end = Some(End::Close(CloseCode::Shutdown.into()));
        }
        let was_connected = self.session.is_connected();
        let mut next = catch_unwind(AssertUnwindSafe(|| self.serve())).unwrap_or_else(|_| {
            self.on_panic();
            None
        });
        if !was_connected && next.is_some() && !self.is_within_budget(peer) {
            next = None;
        }
        if next.is_none() && catch_unwind(AssertUnwindSafe(|| self.leave())).is_err() {
            self.node.metrics().reader_panics_total.inc();
        }
        if next.is_none() {
            tracing::debug!(client = %peer.address().ip(), ended = ?self.outbox.ended(), "a WebSocket ended");
        }
        next
    }

    /// Sends a ping that is due; anything else that is due takes a turn. Pings go on until it comes: a pong that
    /// nobody has read yet is no reason to leave them out.
    pub(in crate::net) fn tick(&mut self, now: Instant) -> Tick {
        if self.end.is_none() && self.timers.take_due_ping(now) {
            self.ping();
        }
        match self.deadline() {
            Some(at) if at <= now => Tick::Turn(self.timers.ping_at().filter(|_| self.end.is_none())),
            next => Tick::Until(next),
        }
    }

    /// Work that the turn has left to its thread.
    pub(in crate::net) fn take_work(&mut self) -> Option<Work> {
        self.session.take_work()
    }

    /// What is left to do when no turn follows.
    pub(in crate::net) fn end(&self) -> Ending {
        debug_assert!(self.has_left, "a connection leaves its rooms before it ends");
        // Also one that was not closed by a frame, because the client is gone.
        if self.outbox.ended().is_none() {
            self.outbox.abort();
        }
        Ending::of_websocket(self.outbox.clone(), self.rules.flush_grace)
    }

    fn serve(&mut self) -> Option<Next> {
        if self.outbox.ended().is_some() {
            return None;
        }
        if let Some(end) = self.end {
            return self.end_after_acks(end);
        }
        if self.refused_until.is_some() {
            return self.await_close();
        }
        // Before anything that came behind connect.
        let flow = self.session.resume();
        self.timers.set_expiry(self.session.next_expiry());
        match self.follow(flow) {
            Err(Stop::Full) => return self.await_wake(),
            Ok(()) if self.waits_for_commit() => return self.await_wake(),
            Ok(()) => {}
            Err(stop) => return self.follow_stop(stop),
        }
        let stop = match self.take_messages() {
            // Before the commit: while that lasts more may come, a pong for instance.
            stop @ (Stop::Idle | Stop::Full | Stop::NoCapacity) => {
                self.do_what_is_due(&stop).err().unwrap_or(stop)
            }
            stop => stop,
        };
        self.session.end_turn();
        if matches!(stop, Stop::Idle) {
            self.session.caught_up();
        }
        self.follow_stop(stop)
    }

    fn follow_stop(&mut self, stop: Stop) -> Option<Next> {
        match stop {
            Stop::Idle | Stop::Full if self.outbox.wake_at_capacity() => self.await_capacity(),
            Stop::Idle | Stop::Full if self.waits_for_commit() => self.await_wake(),
            Stop::Full if self.session.is_in_line() => self.await_wake(),
            Stop::Full => Some(Next::Again),
            Stop::Idle => Some(Next::Wait(Wait::bytes(self.deadline()))),
            Stop::NoCapacity => self.await_capacity(),
            Stop::End(end) => self.end_after_acks(end),
            Stop::Refused => {
                self.refused_until = Some(Instant::now() + GOODBYE);
                self.await_close()
            }
        }
    }

    /// Counts what a client that has not connected keeps until its next turn. False when that is too much, and
    /// it was told so.
    fn is_within_budget(&self, peer: &mut Peer) -> bool {
        if self.session.is_connected() {
            peer.known();
            return true;
        }
        let bytes = self.input.bytes();
        let close = if bytes > STRANGER_MESSAGE_BYTES_MAX {
            TOO_BIG
        } else if peer.hold(bytes, Instant::now()).is_err() {
            CloseFrame { code: 1013, reason: "try again later", kind: None }
        } else {
            return true;
        };
        self.close(close);
        false
    }

    /// True while nothing is read because of publishes on their way into the log: what follows waits for them, or
    /// there are too many of them.
    fn waits_for_commit(&self) -> bool {
        (self.unread.is_some() || self.session.is_in_flight_full()) && self.session.wake_when_committed()
    }

    /// Parks until a wake-up: publishes are stored, subscriptions answered, or the database may be queried. Timers
    /// go on.
    fn await_wake(&mut self) -> Option<Next> {
        match self.do_what_is_due(&Stop::Full) {
            Ok(()) => Some(Next::Wait(Wait::wake(self.deadline()))),
            Err(Stop::End(end)) => self.end_after_acks(end),
            Err(_) => Some(Next::Again),
        }
    }

    /// Ends the connection when what it published before is acknowledged, or has not been for too long.
    fn end_after_acks(&mut self, end: End) -> Option<Next> {
        self.end = Some(end);
        let now = Instant::now();
        let by = *self.end_by.get_or_insert(now + ACKS_WAIT);
        if by > now && self.session.wake_when_committed() {
            return Some(Next::Wait(Wait::wake(Some(by))));
        }
        match end {
            End::Silent => {}
            End::AnswerClose => self.input.answer_close(),
            End::Close(close) => self.close(close),
        }
        None
    }

    /// Parks until the client has read enough of what it asked for: it fills no memory by asking more.
    fn await_capacity(&mut self) -> Option<Next> {
        // The slot that it is called to is for somebody who reads.
        self.session.leave_line();
        let now = Instant::now();
        let by = *self.capacity_by.get_or_insert(now + self.rules.client.stall_timeout);
        if by <= now {
            return self.end_after_acks(End::Close(CloseCode::Slow.into()));
        }
        if !self.outbox.wake_at_capacity() {
            return Some(Next::Again);
        }
        Some(Next::Wait(Wait::wake(self.deadline())))
    }

    /// The next moment at which something is due.
    fn deadline(&self) -> Option<Instant> {
        if self.end_by.is_some() {
            return self.end_by;
        }
        let all =
            [self.timers.next(), self.input.stream.message_deadline(), self.capacity_by, self.refused_until];
        let all = all.into_iter().chain([self.session.deadline()]);
        all.into_iter().flatten().min()
    }

    /// Takes what has arrived, within the bounds of a turn.
    fn take_messages(&mut self) -> Stop {
        if self.outbox.wake_at_capacity() {
            return Stop::NoCapacity;
        }
        self.capacity_by = None;
        self.input.stream.begin_turn();
        if let Some(frame) = self.unread.take()
            && let Err(stop) = self.on_frame(frame)
        {
            return stop;
        }
        let mut messages = 0;
        loop {
            if messages >= TURN_COMMANDS_MAX || self.session.is_turn_full() {
                return Stop::Full;
            }
            match self.read() {
                Ok(()) => messages += 1,
                Err(stop) => return stop,
            }
        }
    }

    /// Reads and handles one message.
    fn read(&mut self) -> Result<(), Stop> {
        match self.input.read() {
            Ok(Some(frame @ (Message::Text(_) | Message::Binary(_)))) => self.on_frame(frame),
            Ok(Some(Message::Close(_))) => Err(Stop::End(End::AnswerClose)),
            // Pings and pongs.
            Ok(Some(_)) => {
                let flow = self.session.count_frame();
                self.follow(flow)
            }
            Ok(None) if self.input.stream.is_turn_full() => Err(Stop::Full),
            Ok(None) => Err(Stop::Idle),
            Err(error) => Err(Stop::End(answer_to(&error))),
        }
    }

    /// Handles the commands of a text or binary frame.
    fn on_frame(&mut self, frame: Message) -> Result<(), Stop> {
        let was_connected = self.session.is_connected();
        let flow = match &frame {
            Message::Text(text) => self.session.on_frame(Frame::Text(text.as_str())),
            Message::Binary(bytes) => self.session.on_frame(Frame::Binary(bytes)),
            _ => Flow::Continue,
        };
        debug_assert!(self.session.is_connected() || !was_connected, "a session stays connected to its end");
        if self.session.is_connected() && !was_connected {
            self.timers.connected(Instant::now(), self.session.spread());
            self.input.set_message_bytes_max(self.rules.client.message_bytes_max);
        }
        if self.session.take_pong() {
            self.timers.pong();
        }
        self.timers.set_expiry(self.session.next_expiry());
        if let Flow::Wait(position) = flow {
            self.unread = rest(&frame, position);
        }
        self.follow(flow)
    }

    /// Does what is due now. Whether a pong is missing is known only when all that came is read.
    fn do_what_is_due(&mut self, after: &Stop) -> Result<(), Stop> {
        let now = Instant::now();
        while let Some(due) = self.timers.due(now, self.is_answerable() && matches!(after, Stop::Idle)) {
            self.on_due(due)?;
        }
        if self.input.stream.message_deadline().is_some_and(|by| by <= now) {
            return Err(Stop::End(End::Close(CloseCode::Slow.into())));
        }
        Ok(())
    }

    fn on_due(&mut self, due: Due) -> Result<(), Stop> {
        debug_assert_eq!(
            self.session.is_connected(),
            due != Due::NoConnect,
            "{due:?} is due before or after connect, never both"
        );
        match due {
            Due::Ping => {
                self.ping();
                Ok(())
            }
            Due::NoPong => Err(Stop::End(End::Close(CloseCode::NoPong.into()))),
            Due::NoConnect => Err(Stop::End(End::Close(CloseCode::Stale.into()))),
            Due::Expiry => {
                let flow = self.session.on_expiry();
                self.timers.set_expiry(self.session.next_expiry());
                self.follow(flow)
            }
        }
    }

    fn ping(&self) {
        let _ = self.outbox.reply(&frame::message(self.outbox.format(), &protocol::message::Message::Ping));
    }

    fn follow(&self, flow: Flow) -> Result<(), Stop> {
        match flow {
            Flow::Continue => Ok(()),
            Flow::Wait(_) => Err(Stop::Full),
            Flow::Disconnect(code) => Err(Stop::End(End::Close(code.into()))),
            Flow::Ended => Err(Stop::End(End::Silent)),
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
    fn await_close(&mut self) -> Option<Next> {
        let until = self.refused_until.filter(|until| *until > Instant::now())?;
        self.input.stream.begin_turn();
        for _ in 0..TURN_COMMANDS_MAX {
            match self.input.read() {
                Ok(Some(Message::Close(_))) => {
                    self.input.answer_close();
                    return None;
                }
                Ok(Some(_)) => {}
                Ok(None) if self.input.stream.is_turn_full() => break,
                Ok(None) => return Some(Next::Wait(Wait::bytes(Some(until)))),
                Err(_) => return None,
            }
        }
        Some(Next::Again)
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

    /// Leaves every room.
    fn leave(&mut self) {
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        let code = match self.outbox.ended() {
            Some(Ended::Closed(code)) => code,
            Some(Ended::Stalled) => CloseCode::Slow.number(),
            Some(Ended::Broken) | None => CloseCode::ConnectionClosed.number(),
        };
        self.node.metrics().disconnects_total.with_label_values(&[&code.to_string()]).inc();
        self.session.leave_all();
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        if !self.has_left {
            // The server cuts off, or a turn panicked in a way that left nothing else to do.
            self.outbox.abort();
            self.leave();
        }
    }
}

/// The part of a frame from `position` on, without a copy.
fn rest(frame: &Message, position: usize) -> Option<Message> {
    match frame {
        Message::Text(text) => {
            let bytes: &bytes::Bytes = text.as_ref();
            Utf8Bytes::try_from(bytes.slice(position..)).ok().map(Message::Text)
        }
        Message::Binary(bytes) => Some(Message::Binary(bytes.slice(position..))),
        _ => None,
    }
}

/// The end that input brings which tungstenite refused.
fn answer_to(error: &Error) -> End {
    let close = |code, reason, kind| End::Close(CloseFrame { code, reason, kind: Some(kind) });
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => End::Close(TOO_BIG),
        Error::Utf8(_) => close(1007, "invalid utf-8", "utf8"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Silent,
        Error::Protocol(_) => close(1002, "protocol error", "websocket"),
        _ => End::Silent,
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;
    use crate::ids::ConnectionId;
    use crate::net::peers::Peers;
    use crate::node::tests::rig::{Backend, Rig};
    use crate::outbox::Reader;
    use crate::protocol::format::Format;

    /// Nobody needs to be woken: the test gives the turns.
    struct Nobody;

    impl Reader for Nobody {
        fn run(&self, work: Work) {
            work();
        }

        fn wake(&self, _: ConnectionId) {}
    }

    #[test]
    fn an_end_waits_for_its_acks_until_a_deadline() {
        let rig = Rig::new(Backend::Sqlite, "");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        let (rules, id) = (Arc::new(ClientRules::new(&rig.config)), ConnectionId::next());
        let queries = Arc::new(Queries::new(&rig.config, rig.handle().metrics()));
        let peers = Peers::new(&rig.config.client, 1, rig.handle().metrics().clone());
        let mut peer = peers.accept(address.ip(), Instant::now()).unwrap();
        let reader: Arc<dyn Reader> = Arc::new(Nobody);
        let outbox =
            rig.handle().outbox_for_socket(id, Format::Json, Arc::new(socket), Some(reader)).unwrap();
        let origin = rules.rates.connection(id);
        let mut websocket =
            WebSocket::new(outbox.clone(), Vec::new(), rig.handle(), &rules, &queries, origin);
        websocket.session.hand_over_for_ever();
        let before = Instant::now();
        let Some(Next::Wait(Wait { interest: None, deadline: Some(by) })) = websocket.turn(&mut peer, true)
        else {
            panic!("it waits for the acks alone, and not for ever");
        };
        assert!(by >= before + ACKS_WAIT && by <= Instant::now() + ACKS_WAIT);
        let waits = Some(Next::Wait(Wait::wake(Some(by))));
        assert_eq!(websocket.turn(&mut peer, true), waits, "a wake-up does not prolong it");
        assert_eq!(websocket.tick(by - Duration::from_millis(1)), Tick::Until(Some(by)));
        assert_eq!(websocket.tick(by), Tick::Turn(None));
        websocket.end_by = Some(Instant::now());
        assert_eq!(websocket.turn(&mut peer, true), None);
        assert_eq!(outbox.ended(), Some(Ended::Closed(CloseCode::Shutdown.number())));
    }
}
