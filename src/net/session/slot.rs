//! Commands that have to ask the database wait until their connection may, without a thread.

use super::Session;
use super::outcome::CommandError;
use crate::net::queries::{Asker, Kind, Slot};

impl Session {
    /// The slot that a command needs before its first query; until there is one, the command has done nothing.
    pub(super) fn slot(&mut self, kind: Kind) -> Result<Slot, CommandError> {
        if !self.publishes.is_empty() || self.in_flight.is_some() {
            // In line, a connection waits for nothing else, or others would wait for its commits.
            return self.queries.ask_once(kind).ok_or(CommandError::Wait);
        }
        let asker = Asker { id: self.outbox.id(), reader: self.outbox.reader() };
        Ok(self.queries.ask(kind, &mut self.place, self.who, asker)?)
    }

    /// The same for a command that may need none.
    pub(super) fn slot_if(&mut self, asks: bool) -> Result<Option<Slot>, CommandError> {
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
}
