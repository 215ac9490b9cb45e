//! Publishing: the one way of a message into a room, whoever sends it.
//!
//! A message is checked, then committed. A rule that messages must keep (right, size, content)
//! belongs in [`NodeHandle::check_publish`], which alone makes a [`CheckedMessage`]; what happens
//! with every message that passed belongs in [`NodeHandle::commit`].

use std::sync::Arc;

use super::access::Caller;
use super::error::PublishError;
use super::handle::NodeHandle;
use crate::clock;
use crate::ids::{Channel, Seq};
use crate::publication::{ClientInfo, Publication};
use crate::store::{AppendError, NewMessage};

/// A message that somebody wants to publish.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// The room.
    pub(crate) channel: Channel,
    /// The payload: compact JSON text.
    pub(crate) data: Arc<str>,
    /// The sender as others see it; `None` for the operator.
    pub(crate) info: Option<Arc<ClientInfo>>,
    /// String-to-string JSON object, compact.
    pub(crate) tags: Option<Arc<str>>,
    /// A second message of the same sender in this room with the same key is not stored again.
    pub(crate) key: Option<Arc<str>>,
    /// The message is not to be stored.
    pub(crate) skip_history: bool,
}

/// A message that may be published. Only [`NodeHandle::check_publish`] makes one.
#[derive(Debug)]
pub(crate) struct CheckedMessage {
    message: NewMessage,
    is_stored: bool,
}

impl CheckedMessage {
    /// True when the message waits for a commit; false when it is only passed on.
    pub(crate) fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// Size of the payload in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.message.data.len()
    }
}

impl NodeHandle {
    /// Publishes each message that passes the checks; those that are stored are committed together.
    /// Outcomes are in the order of the messages: the seq, or 0 in a namespace that stores nothing.
    pub(crate) fn publish(
        &self,
        caller: Caller<'_>,
        drafts: impl IntoIterator<Item = Draft>,
    ) -> Vec<Result<Seq, PublishError>> {
        let mut messages = Vec::new();
        let checks: Vec<Result<(), PublishError>> = drafts
            .into_iter()
            .map(|draft| self.check_publish(caller, draft).map(|message| messages.push(message)))
            .collect();
        let mut outcomes = self.commit(messages).into_iter();
        let answers =
            checks.into_iter().map(|check| check.and_then(|()| next_outcome(&mut outcomes))).collect();
        debug_assert!(outcomes.next().is_none(), "every outcome belongs to a message that passed");
        answers
    }

    /// Decides whether a message may be published.
    ///
    /// # Errors
    /// [`PublishError`]; then nobody gets the message.
    pub(crate) fn check_publish(
        &self,
        caller: Caller<'_>,
        draft: Draft,
    ) -> Result<CheckedMessage, PublishError> {
        let Draft { channel, data, info, tags, key, skip_history } = draft;
        debug_assert!(!data.contains('\n'), "a compact payload is one line; frames are split at lines");
        let options = self.namespace(&channel)?;
        self.check_audience(caller, &channel, options.publish)?;
        if data.len() > options.message_bytes_max {
            return Err(PublishError::TooLarge);
        }
        if options.persist && skip_history {
            return Err(PublishError::AlwaysStored);
        }
        let (is_stored, auto_create) = (options.persist, options.auto_create);
        let message = NewMessage { channel, auto_create, data, info, tags, key };
        Ok(CheckedMessage { message, is_stored })
    }

    /// Passes on the messages that are not stored, then stores the others in one submission, and
    /// returns once every one is durable and on its way, or refused. Outcomes are in the order of the
    /// messages.
    pub(crate) fn commit(&self, messages: Vec<CheckedMessage>) -> Vec<Result<Seq, PublishError>> {
        let count = messages.len();
        let mut to_store = Vec::with_capacity(count);
        let is_stored: Vec<bool> = messages
            .into_iter()
            .map(|CheckedMessage { message, is_stored }| {
                match is_stored {
                    true => to_store.push(message),
                    false => self.pass_on(message),
                }
                is_stored
            })
            .collect();
        let mut stored = self.store_all(to_store).into_iter();
        let seq = |is_stored| if is_stored { next_outcome(&mut stored) } else { Ok(0) };
        let outcomes: Vec<_> = is_stored.into_iter().map(seq).collect();
        debug_assert_eq!(outcomes.len(), count, "every message has an outcome");
        debug_assert!(stored.next().is_none(), "no outcome belongs to no message");
        outcomes
    }

    fn store_all(&self, messages: Vec<NewMessage>) -> Vec<Result<Seq, PublishError>> {
        if messages.is_empty() {
            return Vec::new();
        }
        let count = messages.len();
        let appended = self.store.append(messages, &*self.engine);
        debug_assert_eq!(appended.len(), count, "the store answers for every message");
        let seq_of = |outcome: Result<_, _>| match outcome {
            Ok(appended) => Ok(crate::store::Appended::seq(appended)),
            Err(error) => Err(PublishError::Store(error)),
        };
        let seqs: Vec<_> = appended.into_iter().map(seq_of).collect();
        debug_assert!(!seqs.contains(&Ok(0)), "a stored message has a position");
        seqs
    }

    /// Gives a message that is not stored to those who listen now.
    fn pass_on(&self, message: NewMessage) {
        let NewMessage { channel, data, info, tags, .. } = message;
        let created_at_ms = clock::unix_ms();
        self.engine.publish_ephemeral(Publication { channel, seq: 0, data, info, tags, created_at_ms });
    }
}

fn next_outcome(outcomes: &mut impl Iterator<Item = Result<Seq, PublishError>>) -> Result<Seq, PublishError> {
    outcomes.next().unwrap_or(Err(PublishError::Store(AppendError::Unavailable)))
}
