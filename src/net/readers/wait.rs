//! What a connection waits for between two turns, and what a waiting thread is told.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use crate::ids::ConnectionId;
use crate::outbox::{Reader, Work};

/// A connection as the readers know it: a value that one of them owns at a time and serves in turns.
pub(in crate::net) trait Connection: Send + 'static {
    /// Its id, by which it is woken.
    fn id(&self) -> ConnectionId;

    /// Its socket, to wait for.
    fn socket(&self) -> &Arc<TcpStream>;

    /// Does all that can be done now, within the bounds of a turn; waits for no peer. `reader` wakes this
    /// connection.
    fn turn(&mut self, reader: &Arc<dyn Reader>) -> Next;

    /// Work that the turn left to its thread, for the time when that owns the connection no more: it may wait.
    fn take_work(&mut self) -> Option<Work>;

    /// Does what is due at `now` and takes no time; anything else is left to a turn.
    fn tick(&mut self, now: Instant) -> Tick;
}

/// The next step of a connection after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Next {
    /// Another turn, after those of others.
    Again,
    /// A turn when what it waits for has come.
    Wait(Wait),
    /// None: it is over.
    End,
}

/// What is left to do when a deadline has come and what takes no time was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Tick {
    /// Nothing before this moment, and nothing at all for `None`: the connection is parked again, and its socket
    /// is armed as it was.
    Until(Option<Instant>),
    /// Something that takes a turn, which a reader gives it; this may be late when all of them are busy. Meanwhile it
    /// is parked, with something to do without a turn at this moment, if any.
    Turn(Option<Instant>),
}

/// What a parked connection waits for. Whoever wakes it gives it a turn as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) struct Wait {
    /// `None`: nothing that its socket tells.
    pub(in crate::net) interest: Option<Interest>,
    pub(in crate::net) deadline: Option<Instant>,
}

impl Wait {
    /// For bytes, until `deadline`.
    pub(in crate::net) fn bytes(deadline: Option<Instant>) -> Self {
        Self { interest: Some(Interest::Read), deadline }
    }

    /// For a wake-up, until `deadline`.
    pub(in crate::net) fn wake(deadline: Option<Instant>) -> Self {
        Self { interest: None, deadline }
    }
}

/// What is asked of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Interest {
    /// Bytes, or their end.
    Read,
    /// Space for bytes.
    Write,
}

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// This socket has what was asked of it, or failed.
    Socket(ConnectionId),
    /// Something is in the queue.
    Queue,
}
