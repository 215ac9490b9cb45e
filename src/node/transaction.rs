//! Publishing inside a transaction of the application's.

use std::fmt;
use std::sync::{Arc, Weak};

use super::access::Caller;
use super::error::PublishError;
use super::handle::NodeHandle;
use super::message::Message;
use crate::ids::Seq;
use crate::store::{DatabaseConnection, ForeignError, Pending};

/// Messages were not published by [`Node::publish_in`](crate::Node::publish_in). What the transaction did before stands, and it may be
/// committed without them.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishInError {
    /// A message was refused, and so all of the call.
    Refused(PublishError),
    /// A namespace keeps nothing, so there is nothing to commit.
    NotStored,
    /// The connection is in no transaction that diesel knows of.
    NotInTransaction,
    /// The connection leads to another database than that of the node.
    OtherDatabase,
    /// The connection's commits are less durable than those of the node: `PRAGMA synchronous` of a SQLite file
    /// is to be `FULL`, or `NORMAL` where `database.durability` is.
    NotDurable,
    /// Too many transactions that published are still open: commit them, or give them up.
    TooManyOpen,
    /// A statement failed, or another transaction held the lock of a room for too long. The transaction may be tried
    /// again from its start.
    Database(diesel::result::Error),
}

impl fmt::Display for PublishInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "{error}"),
            Self::NotStored => write!(f, "the channel's namespace stores nothing"),
            Self::NotInTransaction => write!(f, "the connection is in no transaction"),
            Self::OtherDatabase => write!(f, "the connection leads to another database than the node's"),
            Self::NotDurable => write!(f, "the connection commits less durably than the node"),
            Self::TooManyOpen => write!(f, "too many transactions that published are open; end them first"),
            Self::Database(error) => write!(f, "the transaction could not publish: {error}"),
        }
    }
}

impl std::error::Error for PublishInError {}

/// So that a transaction's closure may return this error for its other statements too.
impl From<diesel::result::Error> for PublishInError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error)
    }
}

impl From<PublishError> for PublishInError {
    fn from(error: PublishError) -> Self {
        Self::Refused(error)
    }
}

impl From<ForeignError> for PublishInError {
    fn from(error: ForeignError) -> Self {
        match error {
            ForeignError::NotInTransaction => Self::NotInTransaction,
            ForeignError::OtherDatabase => Self::OtherDatabase,
            ForeignError::NotDurable => Self::NotDurable,
            ForeignError::TooManyOpen => Self::TooManyOpen,
            ForeignError::Refused(error) => Self::Refused(PublishError::Store(error)),
            ForeignError::Failed(error) => Self::Database(error),
        }
    }
}

/// Messages that are published if the transaction of the application that stored them is committed.
///
/// [`pass_on`](Self::pass_on) delivers them once it is. Who drops this instead, or loses it in a panic, leaves that to
/// the node, which looks after the transaction by itself; it takes some milliseconds longer, and up to half a second
/// after a transaction that was long.
pub struct Unsent {
    node: Weak<NodeHandle>,
    seqs: Vec<Seq>,
    pending: Vec<Pending>,
}

impl Unsent {
    /// The numbers of the messages in their rooms, in the order of the call.
    #[must_use]
    pub fn seqs(&self) -> &[Seq] {
        &self.seqs
    }

    /// Delivers the messages after the commit. True when they are committed and on their way; false when the
    /// transaction was given up or is still open, or the database does not answer: the node looks after it
    /// then.
    pub fn pass_on(self) -> bool {
        self.node.upgrade().is_some_and(|node| node.store.pass_on(&self.pending))
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            node.store.look_at_foreign();
        }
    }
}

impl fmt::Debug for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsent").field("seqs", &self.seqs).finish_non_exhaustive()
    }
}

impl NodeHandle {
    /// Has a transaction of the application's store messages, all of them or none.
    pub(super) fn publish_in(
        self: &Arc<Self>,
        connection: &mut impl DatabaseConnection,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Unsent, PublishInError> {
        let mut checked = Vec::new();
        for message in messages {
            let message = self.check_publish(Caller::Operator, message.into_draft())?;
            checked.push(message.into_stored().ok_or(PublishInError::NotStored)?);
        }
        let (seqs, pending) = self.store.append_in(connection, &checked)?;
        debug_assert_eq!(seqs.len(), checked.len(), "every message has its number");
        Ok(Unsent { node: Arc::downgrade(self), seqs, pending })
    }
}
