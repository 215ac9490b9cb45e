//! A session under the limits of rates: what is refused is counted, and who goes on is closed.

use std::time::Instant;

use super::Session;
use super::held_rooms::HeldRooms;
use super::outcome::{CommandError, Flow};
use crate::net::rates::Limit;
use crate::node::CheckedMessage;
use crate::protocol::code::{CloseCode, ErrorCode};

impl Session {
    /// Counts a command, or anything else that the client sends to be told something.
    pub(super) fn count_command(&mut self) -> Result<(), CommandError> {
        let is_within = self.commands.take(self.rules.commands, Instant::now());
        self.judge(if is_within { Ok(()) } else { Err(Limit::Commands) })
    }

    /// Counts a frame that asks for nothing that could be refused.
    pub(in crate::net) fn count_frame(&mut self) -> Flow {
        match self.count_command() {
            Ok(()) => Flow::Continue,
            Err(_) => self.too_many(),
        }
    }

    /// Counts a question to a room or the database, the first time it is tried.
    pub(super) fn count_request(&mut self) -> Result<(), CommandError> {
        let is_within = match self.rules.rates.requests() {
            Some(rate) if !self.is_repeated => self.requests.take(rate, Instant::now()),
            _ => true,
        };
        self.judge(if is_within { Ok(()) } else { Err(Limit::Requests) })
    }

    /// Counts a message for its sender, the first time it is tried: it may ask the database whether it is allowed.
    pub(super) fn count_attempt(&self) -> Result<(), CommandError> {
        if self.is_repeated {
            return Ok(());
        }
        self.judge(self.rules.rates.try_publish(self.who, Instant::now()))
    }

    /// Counts a message that is allowed. The room is not asked before, or those who may not publish would use up
    /// what others may.
    pub(super) fn count_publish(&self, message: &CheckedMessage) -> Result<(), CommandError> {
        let (channel, bytes) = (message.channel(), message.size_bytes());
        self.judge(self.rules.rates.publish(self.who, channel, bytes, Instant::now()))
    }

    /// Counts a new contact, the first time it is tried.
    pub(super) fn count_contact(&self) -> Result<(), CommandError> {
        if self.is_repeated {
            return Ok(());
        }
        self.judge(self.rules.rates.add_contact(self.who, Instant::now()))
    }

    /// Refuses a token unseen after too many that were no good.
    pub(super) fn try_token(&self) -> Result<(), CommandError> {
        self.judge(self.rules.rates.try_token(self.origin, Instant::now()))
    }

    /// A token was no good; one that is only past its time does not count.
    pub(super) fn token_failed(&self) {
        self.rules.rates.token_failed(self.origin, Instant::now());
    }

    /// Counts a client whose connect is about to succeed.
    pub(super) fn count_connect(&self) -> Result<(), CommandError> {
        self.judge(self.rules.rates.connect(self.origin, Instant::now()))
    }

    /// The error for a limit that was reached.
    pub(super) fn judge<T>(&self, outcome: Result<T, Limit>) -> Result<T, CommandError> {
        outcome.map_err(|limit| {
            self.node.metrics().limited_total.with_label_values(&[limit.as_str()]).inc();
            ErrorCode::TooManyRequests.into()
        })
    }

    /// One more refusal for haste: the connection stays unless it goes on and on.
    pub(super) fn too_many(&mut self) -> Flow {
        match self.refusals.take(self.rules.refusals, Instant::now()) {
            true => Flow::Continue,
            false => Flow::Disconnect(CloseCode::TooManyRequests),
        }
    }

    /// Lets publishes settle the places that they hold.
    pub(super) fn held_rooms(&self) -> HeldRooms {
        HeldRooms::new(&self.rules, self.who)
    }
}
