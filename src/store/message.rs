//! The messages that go into the log: as a caller gives them, as they are answered, and the trait
//! by which they leave the store again.
//!
//! Plain types without any SQL, so that every other file of the store may use them.

use std::sync::Arc;
use std::time::Instant;

use crate::ids::{Channel, Seq};
use crate::publication::{ClientInfo, Content, Publication, content_bytes};

/// A message that is to be stored.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The room.
    pub channel: Channel,
    /// Creates the room when it does not exist.
    pub auto_create: bool,
    /// The payload.
    pub data: Content,
    /// The sender; `None` for the server API.
    pub info: Option<Arc<ClientInfo>>,
    /// String-to-string JSON object, compact.
    pub tags: Option<Arc<str>>,
    /// Identifies this publish among those of its sender in this room: the same message with the same key is not
    /// stored again, and another one is refused. That of an anonymous client begins with its client id, for others
    /// are anonymous too.
    pub key: Option<Arc<str>>,
}

impl NewMessage {
    /// The payload as the column for JSON holds it: `null` for bytes that are none, which have a column of their own.
    pub(super) fn json(&self) -> &str {
        self.data.as_json().unwrap_or("null")
    }

    /// Its bytes, as limits count them.
    pub(crate) fn size_bytes(&self) -> usize {
        content_bytes(&self.data, self.tags.as_deref(), self.info.as_deref())
    }
}

/// The position of a message in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It has been stored by this call.
    New(Seq),
    /// A message of the same sender with the same key was stored before, at this position.
    Duplicate(Seq),
}

impl Appended {
    /// The position, new or old.
    #[must_use]
    pub fn seq(self) -> Seq {
        match self {
            Self::New(seq) | Self::Duplicate(seq) => seq,
        }
    }
}

/// The end of a room's log, read because others than the lanes have stored messages there.
#[derive(Debug, Clone)]
pub struct Found {
    /// The room.
    pub channel: Channel,
    /// The history that it was read from.
    pub epoch: Arc<str>,
    /// Number of the newest message.
    pub head: Seq,
    /// Not before the head was read.
    pub at: Instant,
    /// Messages up to the head, or as many as a page holds, in order; others may be missing before them and after.
    pub publications: Vec<Publication>,
}

/// The receiver of committed messages.
pub trait CommitSink: Send + Sync {
    /// Called after a commit, in commit order, by the thread that still leads the lane: it must
    /// wait for nothing but capacity in a queue, and must not call the store. A returned closure
    /// is run by the same thread once the lane is free again, before any sender has its answer.
    /// `begun` is not after the first of their transactions began.
    fn committed<'a>(&'a self, batch: Vec<Publication>, begun: Instant) -> Option<Box<dyn FnOnce() + 'a>>;

    /// Called when the history that the database holds is not the one it held before: positions
    /// and messages that were read or passed on until now mean nothing any more, and those that are
    /// passed on from now on belong to `epoch`. Waits for nothing but capacity in a queue.
    fn forked(&self, epoch: &Arc<str>);

    /// Called when a room was read because others than the lanes have stored messages there, which the sink may have
    /// been told of already. Waits for nothing but capacity in a queue.
    fn found(&self, found: Found) {
        drop(found);
    }
}
