//! Isolating of bad rows: halves a batch that the database refuses until the bad row is alone. Only a row that is
//! known to be bad is refused; where the store fails in one room, its rows fail for now and the others are stored.
//!
//! Runs no statement: a transaction over some of the rows is the caller's.

use std::sync::Arc;

use crate::ids::Channel;
use crate::limits::{INFO_BYTES_MAX, PUBLISH_KEY_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::publication::Publication;
use crate::store::error::AppendError;
use crate::store::message::NewMessage;

use super::rows::{Outcome, Stored};

/// The result of writing a batch.
pub(super) struct Written {
    pub(super) outcomes: Vec<Outcome>,
    /// For the sink, in commit order.
    pub(super) publications: Vec<Publication>,
    /// At least one transaction was committed.
    pub(super) any_committed: bool,
    /// The failure, if it was not a row's own fault.
    pub(super) store_failure: Option<StoreFailure>,
}

/// A failure of the store.
pub(super) struct StoreFailure {
    pub(super) reason: String,
    /// Only some rooms could not be written.
    pub(super) is_partial: bool,
}

/// The reason for which an attempt to store rows failed.
pub(super) enum Failed {
    /// One of the rows is to blame.
    Row(String),
    /// The store is to blame, but perhaps not for all of the rows.
    Part {
        reason: String,
        /// The attempt took long: it is not repeated for each row of a room.
        waited: bool,
    },
    /// The store is to blame.
    Store(String),
}

/// Stores what can be stored of the messages by `attempt`, one transaction over the rows it is
/// given. `recovered` are the messages of a commit that was in doubt, or why they are not known;
/// then nothing is tried.
pub(super) fn write(
    messages: &[NewMessage],
    recovered: Result<Vec<Publication>, String>,
    mut attempt: impl FnMut(&[&NewMessage]) -> Result<Stored, Failed>,
) -> Written {
    let mut batch = PartialBatch::new(messages);
    match recovered {
        Ok(recovered) => batch.publications = recovered,
        Err(reason) => batch.store_failure = Some(reason),
    }
    let open = batch.open_indices();
    if !open.is_empty() {
        write_isolating(&mut batch, &open, &mut attempt);
    }
    batch.finish()
}

/// Stores the rows at these indices; when one of them is in the way, halves them until it is
/// alone. Halves are stored in order, so the order of the batch holds. Rooms in which the store failed are
/// left out from then on.
fn write_isolating(
    batch: &mut PartialBatch<'_>,
    indices: &[usize],
    attempt: &mut impl FnMut(&[&NewMessage]) -> Result<Stored, Failed>,
) {
    debug_assert!(indices.is_sorted_by(|a, b| a < b), "rows keep their order");
    let indices = &*batch.leave_out_failed_rooms(indices);
    if batch.store_failure.is_some() || indices.is_empty() {
        return;
    }
    let failed = match attempt(&batch.messages_at(indices)) {
        Ok(stored) => return batch.book(indices, stored),
        Err(failed) => failed,
    };
    match (failed, indices) {
        (Failed::Store(reason), _) => batch.store_failure = Some(reason),
        (Failed::Row(_), [index]) if batch.may_be_overtaken(*index) => {
            write_isolating(batch, indices, attempt);
        }
        (Failed::Row(reason), [index]) => batch.refuse(*index, reason),
        (Failed::Part { reason, waited }, _) if batch.is_last_try(indices, waited) => {
            batch.fail_room(indices[0], reason);
        }
        _ => {
            let (first, second) = indices.split_at(indices.len() / 2);
            write_isolating(batch, first, attempt);
            write_isolating(batch, second, attempt);
        }
    }
}

/// A batch while it is being written.
struct PartialBatch<'m> {
    messages: &'m [NewMessage],
    outcomes: Vec<Option<Outcome>>,
    publications: Vec<Publication>,
    /// Rooms in which the store failed, and why.
    failed_rooms: Vec<(&'m Channel, String)>,
    /// At least one transaction was committed.
    any_committed: bool,
    store_failure: Option<String>,
    /// A row that was given a second try because of its key.
    second_try: Option<usize>,
}

impl<'m> PartialBatch<'m> {
    fn new(messages: &'m [NewMessage]) -> Self {
        let refused = |message| refusal(message).map(|reason| Err(AppendError::Rejected(reason.to_owned())));
        Self {
            messages,
            outcomes: messages.iter().map(refused).collect(),
            publications: Vec::new(),
            failed_rooms: Vec::new(),
            any_committed: false,
            store_failure: None,
            second_try: None,
        }
    }

    fn open_indices(&self) -> Vec<usize> {
        (0..self.messages.len()).filter(|index| self.outcomes[*index].is_none()).collect()
    }

    fn messages_at(&self, indices: &[usize]) -> Vec<&'m NewMessage> {
        indices.iter().map(|index| &self.messages[*index]).collect()
    }

    fn book(&mut self, indices: &[usize], stored: Stored) {
        debug_assert_eq!(stored.outcomes.len(), indices.len(), "one outcome a row");
        for (index, outcome) in indices.iter().zip(stored.outcomes) {
            debug_assert!(self.outcomes[*index].is_none(), "a row is stored once");
            debug_assert!(outcome.is_some(), "a committed row has an outcome");
            self.outcomes[*index] = outcome;
        }
        self.publications.extend(stored.publications);
        self.any_committed = true;
    }

    /// True once for a row with a key: another server may have stored the same key in a room that
    /// this batch was about to create, when there was no row to lock. A second try finds it.
    fn may_be_overtaken(&mut self, index: usize) -> bool {
        self.messages[index].key.is_some() && self.second_try.replace(index) != Some(index)
    }

    fn refuse(&mut self, index: usize, reason: String) {
        debug_assert!(self.outcomes[index].is_none(), "only an open row is blamed");
        self.outcomes[index] = Some(Err(AppendError::Rejected(reason)));
    }

    /// True when a failure of the store is not looked into any further: one row is left, or one room and the
    /// failure took long.
    fn is_last_try(&self, indices: &[usize], waited: bool) -> bool {
        let room = |index: &usize| &self.messages[*index].channel;
        indices.len() == 1 || (waited && indices.iter().all(|index| room(index) == room(&indices[0])))
    }

    /// The store failed in one room. Two such rooms and nothing that could be stored mean that it fails in all.
    fn fail_room(&mut self, index: usize, reason: String) {
        debug_assert!(self.outcomes[index].is_none(), "only an open row fails");
        if !self.any_committed && !self.failed_rooms.is_empty() {
            self.store_failure = Some(reason.clone());
        }
        self.failed_rooms.push((&self.messages[index].channel, reason));
    }

    fn leave_out_failed_rooms(&self, indices: &[usize]) -> Vec<usize> {
        let failed = |index: &usize| {
            let channel = &self.messages[*index].channel;
            self.failed_rooms.iter().any(|(room, _)| *room == channel)
        };
        indices.iter().copied().filter(|index| !failed(index)).collect()
    }

    fn finish(mut self) -> Written {
        let in_room = self.failed_rooms.pop().map(|(_, reason)| reason);
        let is_partial = self.store_failure.is_none();
        let store_failure = self.store_failure.or(in_room);
        debug_assert!(
            store_failure.is_some() || self.outcomes.iter().all(Option::is_some),
            "every row has an outcome unless the store failed"
        );
        let any_committed = self.any_committed;
        let outcomes =
            self.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(AppendError::Unavailable)));
        Written {
            outcomes: outcomes.collect(),
            publications: self.publications,
            any_committed,
            store_failure: store_failure.map(|reason| StoreFailure { reason, is_partial }),
        }
    }
}

/// The reason for which neither database can store a message; `None` when it can be tried. Asked before any statement runs.
fn refusal(message: &NewMessage) -> Option<&'static str> {
    let info = message.info.as_deref();
    let texts = [
        message.data.as_json(),
        message.tags.as_deref(),
        message.key.as_deref(),
        info.map(|info| &*info.user),
        info.map(|info| &*info.client),
        info.and_then(|info| info.conn_info.as_deref()),
        info.and_then(|info| info.chan_info.as_deref()),
    ];
    // The scope of an anonymous client's key is put before what the client has chosen.
    let scope_bytes = info.filter(|info| info.user.is_empty()).map_or(0, |info| info.client.len() + 1);
    let longer = |text: Option<&Arc<str>>, max: usize| text.is_some_and(|text| text.len() > max);
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        Some("it holds a NUL character")
    } else if longer(message.key.as_ref(), PUBLISH_KEY_BYTES_MAX + scope_bytes) {
        Some("its key is too long")
    } else if longer(info.map(|info| &info.user), USER_ID_BYTES_MAX) {
        Some("its sender's user id is too long")
    } else if longer(info.and_then(|info| info.conn_info.as_ref()), INFO_BYTES_MAX)
        || longer(info.and_then(|info| info.chan_info.as_ref()), INFO_BYTES_MAX)
    {
        Some("its sender's info is too long")
    } else {
        None
    }
}
