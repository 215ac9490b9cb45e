//! Isolating of bad rows: halves a batch that the database refuses until the bad row is alone.
//!
//! Runs no statement: a transaction over some of the rows is the caller's.

use std::sync::Arc;

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
    pub(super) store_failure: Option<String>,
}

/// The reason for which an attempt to store rows failed.
pub(super) enum Failed {
    /// One of the rows is to blame, certainly or perhaps.
    Rows { reason: String, certain: bool },
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
/// alone. Halves are stored in order, so the order of the batch holds.
fn write_isolating(
    batch: &mut PartialBatch<'_>,
    indices: &[usize],
    attempt: &mut impl FnMut(&[&NewMessage]) -> Result<Stored, Failed>,
) {
    debug_assert!(!indices.is_empty(), "half of two rows is one");
    debug_assert!(indices.is_sorted_by(|a, b| a < b), "rows keep their order");
    if batch.store_failure.is_some() {
        return;
    }
    match attempt(&batch.messages_at(indices)) {
        Ok(stored) => batch.book(indices, stored),
        Err(Failed::Rows { reason, certain }) => match indices {
            [index] if batch.may_be_overtaken(*index) => write_isolating(batch, indices, attempt),
            [index] => batch.blame(*index, reason, certain),
            _ => {
                let (first, second) = indices.split_at(indices.len() / 2);
                write_isolating(batch, first, attempt);
                write_isolating(batch, second, attempt);
            }
        },
        Err(Failed::Store(reason)) => batch.store_failure = Some(reason),
    }
}

/// A batch while it is being written.
struct PartialBatch<'m> {
    messages: &'m [NewMessage],
    outcomes: Vec<Option<Outcome>>,
    publications: Vec<Publication>,
    /// Rows that failed alone, without the database saying whose fault it was.
    suspects: Vec<(usize, String)>,
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
            suspects: Vec::new(),
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

    /// A row failed alone. When the database does not say whose fault that is, two such
    /// failures without a success blame the store.
    fn blame(&mut self, index: usize, reason: String, certain: bool) {
        debug_assert!(self.outcomes[index].is_none(), "only an open row is blamed");
        if certain {
            self.outcomes[index] = Some(Err(AppendError::Rejected(reason)));
            return;
        }
        if !self.any_committed && !self.suspects.is_empty() {
            self.store_failure = Some(reason.clone());
        }
        self.suspects.push((index, reason));
    }

    /// Judges the suspects: bad rows if others could be stored, else victims.
    fn finish(mut self) -> Written {
        if self.any_committed && self.store_failure.is_none() {
            for (index, reason) in self.suspects.drain(..) {
                self.outcomes[index] = Some(Err(AppendError::Rejected(reason)));
            }
        }
        let store_failure = self.store_failure.or_else(|| self.suspects.pop().map(|(_, reason)| reason));
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
            store_failure,
        }
    }
}

/// The reason for which neither database can store a message; `None` when it can be tried. Asked before any statement runs.
fn refusal(message: &NewMessage) -> Option<&'static str> {
    let info = message.info.as_deref();
    let texts = [
        Some(&message.data),
        message.tags.as_ref(),
        message.key.as_ref(),
        info.map(|info| &info.user),
        info.map(|info| &info.client),
        info.and_then(|info| info.conn_info.as_ref()),
        info.and_then(|info| info.chan_info.as_ref()),
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
