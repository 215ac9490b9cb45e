//! Commands that have to ask the database wait until their connection may, without a thread.

use std::time::Instant;

use super::Session;
use super::outcome::CommandError;
use crate::limits::QUERY_ANSWER_MAX;
use crate::net::queries::{Asker, Kind, Slot};
use crate::protocol::code::ErrorCode;
use crate::sync::deadline::Deadline;

/// The right to query until a command is to be answered.
#[must_use]
pub(super) struct Query {
    _slot: Slot,
    _answer_by: Deadline,
}

impl Session {
    /// The slot that a command needs before its first query; until there is one, the command has done nothing.
    pub(super) fn slot(&mut self, kind: Kind) -> Result<Query, CommandError> {
        let since = self.waits_since();
        let slot = if !self.publishes.is_empty() || self.in_flight.is_some() {
            // In line, a connection waits for nothing else, or others would wait for its commits.
            self.queries.ask_once(kind).ok_or(CommandError::Wait)?
        } else {
            let asker = Asker { id: self.outbox.id(), reader: self.outbox.reader() };
            self.queries.ask(kind, &mut self.place, (self.who, asker), since)?
        };
        self.has_asked = true;
        Ok(Query { _slot: slot, _answer_by: Deadline::set(since + QUERY_ANSWER_MAX) })
    }

    /// The same for a command that may need none.
    pub(super) fn slot_if(&mut self, asks: bool) -> Result<Option<Query>, CommandError> {
        if asks { self.slot(Kind::Read).map(Some) } else { Ok(None) }
    }

    /// True when the connection is woken when it may query the database.
    pub(in crate::net) fn is_in_line(&self) -> bool {
        self.place.is_some()
    }

    /// Lets others go first, because the connection waits for something else now.
    pub(in crate::net) fn leave_line(&mut self) {
        self.place = None;
    }

    /// The moment since which the database has done nothing for what the client sent at once, a frame of many
    /// commands for instance: all of it has one bound, and not each command its own.
    pub(super) fn waits_since(&mut self) -> Instant {
        if self.in_flight.take_stored() {
            self.waits_since = None;
        }
        *self.waits_since.get_or_insert_with(Instant::now)
    }

    /// A command is over that may have asked the database. The client's patience is renewed if that has answered all
    /// it was asked; a publish still waits for its commit.
    pub(super) fn has_asked(&mut self, outcome: &Result<(), CommandError>) {
        let failed = matches!(outcome, Err(CommandError::Wait | CommandError::Error(ErrorCode::Internal)));
        if std::mem::take(&mut self.has_asked) && !failed && self.publishes.is_empty() {
            self.waits_since = None;
        }
    }

    /// All is handled that the client sent.
    pub(in crate::net) fn caught_up(&mut self) {
        self.waits_since = None;
    }
}
