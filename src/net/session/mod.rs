//! One client's session: commands in, replies and effects out.
//!
//! Knows no socket and no format: frames come in, frames go to the outbox. Commands take effect in the order they
//! came; publishes that follow each other are committed together and acknowledged in one frame when
//! the turn ends.

mod commits;
mod connect;
mod expiry;
mod held_rooms;
mod joining;
mod limits;
mod outcome;
mod pending;
mod publish;
mod query;
mod refresh;
mod rpc;
mod slot;
mod subscribe;

pub(super) use outcome::Flow;
pub(super) use query::stats;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::client_rules::ClientRules;
use super::queries::{Place, Queries};
use super::rates::Who;
use crate::clock;
use crate::ids::Channel;
use crate::limits::{FRAME_BYTES_MAX, TURN_COMMANDS_MAX};
use crate::node::{Caller, Client, NodeHandle};
use crate::outbox::frame::Frames;
use crate::outbox::{Outbox, Work};
use crate::protocol::code::{CloseCode, ErrorCode};
use crate::protocol::command::{BadCommand, Command, Method};
use crate::protocol::format::Frame;
use crate::protocol::message::Message;
use crate::protocol::reply::Reply;
use commits::InFlight;
use expiry::Expiries;
use joining::Joining;
use outcome::CommandError;
use pending::PendingPublishes;

/// One client's session: its identity, its tokens' expiries, and what waits for the end of the turn.
pub(super) struct Session {
    node: Arc<NodeHandle>,
    rules: Arc<ClientRules>,
    outbox: Arc<Outbox>,
    queries: Arc<Queries>,
    /// The command that comes next waits until it may query the database.
    place: Option<Box<Place>>,
    /// It was begun before, and counts as one command.
    is_repeated: bool,
    /// See [`Self::waits_since`].
    waits_since: Option<Instant>,
    /// The command at hand had a slot.
    has_asked: bool,
    /// Present once connected, or about to be.
    client: Option<Client>,
    /// Connect waits for the positions of server-side subscriptions.
    joining: Option<Box<Joining>>,
    expiries: Expiries,
    /// The address or the connection it comes from.
    origin: Who,
    /// Its user, who has shown a token; before, and for anybody else, the same as `origin`.
    who: Who,
    commands: Bucket,
    requests: Bucket,
    refusals: Bucket,
    publishes: PendingPublishes,
    in_flight: Arc<InFlight>,
    /// To be done by the thread of this turn when it owns the connection no more.
    work: Vec<Work>,
    replies: Frames,
    /// Commands handled in this turn.
    turn_commands: usize,
    saw_pong: bool,
    /// More replies are queued than the budget allows: the client has to read before it asks for more.
    over_budget: bool,
}

impl Session {
    /// A session of somebody who comes from `origin`.
    pub(super) fn new(
        outbox: Arc<Outbox>,
        node: Arc<NodeHandle>,
        rules: Arc<ClientRules>,
        queries: Arc<Queries>,
        origin: Who,
    ) -> Self {
        let full = Bucket::full(Instant::now());
        let replies = Frames::new(outbox.format());
        Self {
            node,
            rules,
            outbox,
            queries,
            place: None,
            is_repeated: false,
            waits_since: None,
            has_asked: false,
            client: None,
            joining: None,
            expiries: Expiries::default(),
            origin,
            who: origin,
            commands: full,
            requests: full,
            refusals: full,
            publishes: PendingPublishes::default(),
            in_flight: Arc::default(),
            work: Vec::new(),
            replies,
            turn_commands: 0,
            saw_pong: false,
            over_budget: false,
        }
    }

    /// Handles the commands of one frame, as many as a turn takes. What ends the connection or a token meanwhile
    /// takes effect before the next of them.
    pub(super) fn on_frame(&mut self, frame: Frame<'_>) -> Flow {
        let mut commands = self.outbox.format().decode(frame);
        while let Some(position) = commands.position() {
            let flow = self.interruption(position);
            if flow != Flow::Continue {
                return flow;
            }
            let Some(command) = commands.next() else { break };
            if !self.may_follow_publishes(&command) {
                return Flow::Wait(position);
            }
            self.turn_commands += 1;
            let flow = match command {
                Ok(command) => self.on_command(command),
                Err(bad) => self.on_bad(bad),
            };
            match flow {
                Flow::Continue => {}
                Flow::Wait(_) => return Flow::Wait(position),
                flow => return flow,
            }
        }
        Flow::Continue
    }

    /// The end of the connection, of a token or of the turn that came since the last command; the next one is
    /// at `position` in its frame.
    fn interruption(&mut self, position: usize) -> Flow {
        if self.outbox.ended().is_some() {
            return Flow::Ended;
        }
        if self.over_budget || self.is_turn_full() || self.joining.is_some() {
            return Flow::Wait(position);
        }
        match self.expiries.next() {
            Some(at) if at <= Instant::now() => self.on_expiry(),
            _ => Flow::Continue,
        }
    }

    /// True for a command that takes effect at once, although publishes before it are not stored yet: another
    /// publish, or one that asks for nothing.
    fn may_follow_publishes(&self, command: &Result<Command, BadCommand>) -> bool {
        if self.publishes.is_empty() && !self.in_flight.is_some() {
            return true;
        }
        match command {
            // The rpc's channel is not known yet.
            Ok(Command { method: Method::Rpc(_), .. }) => false,
            // What is not stored would be on its way before them.
            Ok(Command { method: Method::Publish(request), .. }) => !self.node.is_ephemeral(&request.channel),
            Ok(Command { method, .. }) => matches!(method, Method::Pong),
            // An end waits for the acks before it, an error reply for nothing.
            Err(_) => true,
        }
    }

    /// True while publishes are on their way into the log; then the connection is woken when none is any more.
    pub(super) fn wake_when_committed(&self) -> bool {
        self.in_flight.wake_when_none()
    }

    /// Counts a publish as on its way that nobody ever answers.
    #[cfg(test)]
    #[cfg(not(feature = "model"))]
    pub(super) fn hand_over_for_ever(&self) {
        self.in_flight.add(1, 1);
    }

    /// True when so many publishes are on their way that no more are to be read.
    pub(super) fn is_in_flight_full(&self) -> bool {
        self.in_flight.is_full()
    }

    /// Work that the turn has left to its thread.
    pub(super) fn take_work(&mut self) -> Option<Work> {
        if self.work.len() <= 1 {
            return self.work.pop();
        }
        let all = std::mem::take(&mut self.work);
        // Each leads a lane of its own, and may do so for long: all but one are for other threads.
        let mut all = all.into_iter();
        let own = all.next();
        for work in all {
            match self.outbox.reader() {
                Some(reader) => reader.run(work),
                None => work(),
            }
        }
        own
    }

    /// True when the turn should end before more is read.
    pub(super) fn is_turn_full(&self) -> bool {
        self.turn_commands >= TURN_COMMANDS_MAX || self.publishes.is_full()
    }

    /// Hands the pending publishes over and sends the replies of the turn.
    pub(super) fn end_turn(&mut self) {
        self.flush_replies();
        self.hand_over();
        (self.turn_commands, self.over_budget) = (0, false);
        debug_assert!(!self.is_turn_full(), "a turn begins empty");
    }

    /// Leaves every room; the connection ends.
    pub(super) fn leave_all(&mut self) {
        // First of all: what fails behind it leaves no client that is gone in a room.
        if let Some(client) = &self.client {
            self.node.disconnect(client);
        }
        debug_assert!(
            self.publishes.is_empty() && self.replies.is_empty(),
            "the last turn was ended: no publish is lost, no reply left out"
        );
    }

    /// Forgets what a turn has begun, after it panicked: its publishes are not committed, its replies not sent.
    pub(super) fn abandon_turn(&mut self) {
        self.publishes = PendingPublishes::default();
        self.replies = Frames::new(self.outbox.format());
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.is_some()
    }

    /// The moment by which a connect under way must be answered, or a command be carried out that waits for others'
    /// queries.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let joining = self.joining.as_ref().map(|joining| joining.deadline);
        joining.or_else(|| self.place.as_ref().map(|place| place.deadline()))
    }

    /// A number that differs between connections, to spread their pings.
    pub(super) fn spread(&self) -> u8 {
        (self.outbox.id().0.wrapping_mul(97) % 256) as u8
    }

    /// True once for each answer to a ping.
    pub(super) fn take_pong(&mut self) -> bool {
        std::mem::take(&mut self.saw_pong)
    }

    /// The next end of a token's grace.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.next()
    }

    fn on_command(&mut self, Command { id, method }: Command) -> Flow {
        // A command that waited is counted already.
        if !self.is_repeated {
            self.node.metrics().commands_total.with_label_values(&[method.as_str()]).inc();
            if matches!(method, Method::Pong) {
                self.saw_pong = true;
                return self.count_frame();
            }
            if self.count_command().is_err() {
                return self.fail(id, ErrorCode::TooManyRequests);
            }
        }
        let connecting = matches!(method, Method::Connect(_));
        if self.is_connected() == connecting {
            return self.disconnect(CloseCode::BadRequest, "order");
        }
        let outcome = self.dispatch(id, method);
        self.has_asked(&outcome);
        self.is_repeated = matches!(outcome, Err(CommandError::Wait));
        match outcome {
            Ok(()) => {
                debug_assert!(self.is_connected(), "a command that succeeds is connect or comes after it");
                Flow::Continue
            }
            Err(CommandError::Wait) => Flow::Wait(0),
            Err(CommandError::Close(code)) => Flow::Disconnect(code),
            Err(CommandError::Error(code)) => {
                let flow = self.fail(id, code);
                if connecting && flow == Flow::Continue { self.refuse() } else { flow }
            }
        }
    }

    fn dispatch(&mut self, id: u32, method: Method) -> Result<(), CommandError> {
        match method {
            Method::Connect(request) => self.connect(id, request),
            Method::Subscribe(request) => self.subscribe(id, request),
            Method::Unsubscribe(request) => {
                self.unsubscribe(&request.channel, &Message::Reply(id, Reply::Unsubscribe));
                Ok(())
            }
            Method::Publish(request) => self.publish(id, request),
            Method::Presence(request) => self.presence(id, &request.channel),
            Method::PresenceStats(request) => self.presence_stats(id, &request.channel),
            Method::History(request) => self.history(id, &request),
            Method::Rpc(request) => self.rpc(id, request),
            Method::Refresh(request) => self.refresh(id, &request.token),
            Method::SubRefresh(request) => self.sub_refresh(id, &request),
            Method::Ping => {
                self.reply(id, Reply::Ping);
                Ok(())
            }
            // Nobody listens for what has no reply.
            Method::Send(_) => Err(CloseCode::NotAvailable.into()),
            Method::Pong => Ok(()),
        }
    }

    fn on_bad(&mut self, bad: BadCommand) -> Flow {
        match bad {
            BadCommand::Close(broken) => self.disconnect(CloseCode::BadRequest, broken.as_str()),
            BadCommand::Refuse { connect: true, .. } => self.disconnect(CloseCode::BadRequest, "connect"),
            BadCommand::Refuse { .. } if !self.is_connected() => {
                self.disconnect(CloseCode::BadRequest, "order")
            }
            BadCommand::Refuse { id, connect: false } => {
                self.node.metrics().bad_input_total.with_label_values(&["parameters"]).inc();
                let is_within = self.count_command().is_ok();
                self.fail(id, if is_within { ErrorCode::BadRequest } else { ErrorCode::TooManyRequests })
            }
        }
    }

    fn disconnect(&self, code: CloseCode, kind: &str) -> Flow {
        self.node.metrics().bad_input_total.with_label_values(&[kind]).inc();
        Flow::Disconnect(code)
    }

    /// Sends the error reply to connect past the cork and stops listening.
    fn refuse(&mut self) -> Flow {
        debug_assert!(!self.replies.is_empty(), "connect is refused by an error reply");
        let _ = self.outbox.uncork(&self.replies.take());
        Flow::Refused
    }

    fn fail(&mut self, id: u32, code: ErrorCode) -> Flow {
        if code == ErrorCode::TooManyRequests {
            let flow = self.too_many();
            if flow != Flow::Continue {
                return flow;
            }
        }
        if id != 0 && !self.publishes.is_empty() {
            self.publishes.push_refused(id, code);
            return Flow::Continue;
        }
        self.node.metrics().errors_total.with_label_values(&[&code.number().to_string()]).inc();
        // Commands without a reply have no id.
        if id != 0 {
            self.reply(id, Reply::Error(code));
        }
        Flow::Continue
    }

    fn reply(&mut self, id: u32, reply: Reply<'_>) {
        self.tell(&Message::Reply(id, reply));
    }

    fn tell(&mut self, message: &Message<'_>) {
        self.replies.add(message);
        if self.replies.len() > FRAME_BYTES_MAX / 2 {
            self.flush_replies();
            self.over_budget |= self.outbox.is_over_budget();
        }
    }

    fn flush_replies(&mut self) {
        if !self.replies.is_empty() {
            let _ = self.outbox.reply(&self.replies.take());
        }
    }

    /// The connected client; commands before connect never get this far.
    fn client(&self) -> Result<&Client, CommandError> {
        self.client.as_ref().ok_or(CommandError::Close(CloseCode::BadRequest))
    }

    /// This client as the one who asks something about a channel.
    fn caller(&self, channel: &Channel) -> Caller<'_> {
        self.client.as_ref().map_or(Caller::Client { user: "", subscribed: false }, |client| Caller::Client {
            user: client.user(),
            subscribed: client.is_subscribed(channel),
        })
    }

    fn is_subscribed(&self, channel: &Channel) -> bool {
        self.client.as_ref().is_some_and(|client| client.is_subscribed(channel))
    }

    /// The instant a token's grace is over, by its expiry in Unix seconds.
    fn end_of_grace(&self, expires_at: i64) -> Instant {
        let left = Duration::from_secs(u64::try_from(expires_at - clock::unix_seconds()).unwrap_or(0));
        Instant::now() + left + self.rules.client.expired_close_delay
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("client", &self.client).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
