//! The inside of a commit, for a transaction that no lane began.

use diesel::QueryResult;

use super::rows::Outcome;
use super::transaction;
use crate::ids::{Channel, Seq};
use crate::store::connection::Borrowed;
use crate::store::message::NewMessage;

/// The messages that are stored, should the transaction be committed.
#[derive(Debug)]
pub(in crate::store) struct Stored {
    /// One per message.
    pub(in crate::store) outcomes: Vec<Outcome>,
    /// The rooms that grew, each once: the head before and after.
    pub(in crate::store) grown: Vec<(Channel, Seq, Seq)>,
}

/// Writes the messages, with the locks of a lane and in their order.
pub(in crate::store) fn store_for_others(
    connection: &mut Borrowed<'_>,
    messages: &[&NewMessage],
    now_ms: i64,
) -> QueryResult<Stored> {
    let stored = transaction::store(connection, messages, now_ms, |_| false)?;
    let outcomes: Vec<_> = stored.outcomes.into_iter().flatten().collect();
    debug_assert_eq!(outcomes.len(), messages.len(), "every message has its outcome");
    let grown = stored.grown.into_iter().map(|grown| (grown.channel, grown.before, grown.head)).collect();
    Ok(Stored { outcomes, grown })
}
