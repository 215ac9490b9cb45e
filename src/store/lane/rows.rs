//! The rows of a commit: the types that `transaction` and the statements of both databases share.
//!
//! Knows no connection and runs no statement.

use std::sync::Arc;

use crate::ids::{Channel, Seq};
use crate::publication::Publication;
use crate::store::error::AppendError;
use crate::store::message::{Appended, NewMessage};

/// The answer to one message.
pub(super) type Outcome = Result<Appended, AppendError>;

/// The row of a room after its share of the batch was counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoomHead {
    pub(super) id: i64,
    pub(super) head: i64,
    /// Time of its newest messages: now, unless an earlier one came when the clock was ahead.
    pub(super) active_ms: i64,
}

/// The part of a batch that goes into one room.
#[derive(Debug)]
pub(super) struct RoomShare<'m> {
    pub(super) channel: &'m Channel,
    pub(super) auto_create: bool,
    /// Indices of the new messages in the batch, ascending.
    pub(super) indices: Vec<usize>,
}

/// A client key with everything that makes it unique in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyedBy<'m> {
    pub(super) channel: &'m Channel,
    /// Empty for an anonymous client and for the server API. (Their messages are told apart by what
    /// [`is_repeat`] compares.)
    pub(super) sender: &'m str,
    pub(super) key: &'m str,
}

impl<'m> KeyedBy<'m> {
    /// `None` for a message without a key.
    pub(super) fn of(message: &'m NewMessage) -> Option<Self> {
        let key = message.key.as_deref()?;
        let sender = message.info.as_deref().map_or("", |info| &info.user);
        Some(Self { channel: &message.channel, sender, key })
    }
}

/// A row that has the key of a message of the batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoundKey {
    /// Index of the message.
    pub(super) index: usize,
    pub(super) seq: i64,
    /// The message is what the row holds, so it was sent twice.
    pub(super) is_repeat: bool,
}

/// True when two messages with one key are the same message, sent twice.
pub(super) fn is_repeat(first: &NewMessage, second: &NewMessage) -> bool {
    first.info.is_some() == second.info.is_some() && first.data == second.data && first.tags == second.tags
}

/// The positions (before, head] that a transaction gave away in one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grown {
    pub(super) channel: Channel,
    pub(super) before: Seq,
    pub(super) head: Seq,
}

/// The result of a transaction, valid once it is committed.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// One per message.
    pub(super) outcomes: Vec<Option<Outcome>>,
    /// The new messages, in commit order.
    pub(super) publications: Vec<Publication>,
    /// The rooms that grew, each once.
    pub(super) grown: Vec<Grown>,
    /// Senders that are rows of `users` now.
    pub(super) users: Vec<Arc<str>>,
}
