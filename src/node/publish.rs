//! Publishing: the one way of a message into a room, whoever sends it.
//!
//! A message is checked, then committed. A rule that messages must keep (right, size, content)
//! belongs in [`NodeHandle::check_publish`], which alone makes a [`CheckedMessage`]; what happens
//! with every message that passed belongs in [`NodeHandle::commit`].

use std::sync::Arc;
use std::time::Instant;

use super::access::Caller;
use super::error::PublishError;
use super::handle::NodeHandle;
use crate::clock;
use crate::config::PayloadKind;
use crate::ids::{Channel, Seq};
use crate::outbox::Work;
use crate::publication::{ClientInfo, Content, Publication};
use crate::store::{AppendError, Appended, Completion, NewMessage};

/// A message that somebody wants to publish.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// The room.
    pub(crate) channel: Channel,
    /// The payload.
    pub(crate) data: Content,
    /// The sender as others see it; `None` for the operator.
    pub(crate) info: Option<Arc<ClientInfo>>,
    /// String-to-string JSON object, compact.
    pub(crate) tags: Option<Arc<str>>,
    /// The same message of the same sender in this room with the same key is not stored again, and another message
    /// with it is refused. All anonymous clients are different senders.
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

    /// True when it creates its room if there is none.
    pub(crate) fn may_create(&self) -> bool {
        self.is_stored && self.message.auto_create
    }

    /// From now on a room that does not exist is unknown.
    pub(crate) fn deny_creation(&mut self) {
        self.message.auto_create = false;
    }

    /// The message to be stored; `None` when it is only passed on.
    pub(super) fn into_stored(self) -> Option<NewMessage> {
        self.is_stored.then_some(self.message)
    }

    /// Its room.
    pub(crate) fn channel(&self) -> &Channel {
        &self.message.channel
    }

    /// Its bytes, as limits count them.
    pub(crate) fn size_bytes(&self) -> usize {
        self.message.size_bytes()
    }
}

/// A sender that does not wait for its messages to be stored. Called by the thread that commits, which it must
/// not hold up.
pub(crate) trait Acknowledge: Send + Sync {
    /// Every message is durable, or refused; the outcomes are in the order of the messages. What was stored is
    /// about to be delivered by the same thread, so acks may be held back until
    /// [`delivered`](Self::delivered), to leave together with what is delivered to the same client.
    fn acknowledged(&self, outcomes: Vec<Result<Seq, PublishError>>);

    /// What was stored is on its way.
    fn delivered(&self);

    /// Has a thread do this soon, which may wait.
    fn run(&self, work: Work);
}

/// Messages that were handed over, by the lane they are in.
struct HandedOver {
    node: Arc<NodeHandle>,
    lane: usize,
    sender: Arc<dyn Acknowledge>,
}

impl HandedOver {
    fn lead(node: &Arc<NodeHandle>, lane: usize) -> Work {
        let node = node.clone();
        Box::new(move || node.store.lead(lane, &*node.engine))
    }
}

impl Completion<Result<Appended, AppendError>> for HandedOver {
    fn answered(&self, answers: Vec<Result<Appended, AppendError>>) {
        self.sender.acknowledged(answers.into_iter().map(outcome).collect());
    }

    fn delivered(&self) {
        self.sender.delivered();
    }

    fn appointed(&self) {
        self.sender.run(Self::lead(&self.node, self.lane));
    }
}

impl NodeHandle {
    /// True for a room whose messages are passed on without being stored.
    pub(crate) fn is_ephemeral(&self, channel: &Channel) -> bool {
        self.namespace(channel).is_ok_and(|options| !options.persist)
    }

    /// Number of the commit lane that stores this message.
    pub(crate) fn lane_of(&self, message: &CheckedMessage) -> usize {
        self.store.lane_of(&message.message.channel)
    }

    /// Hands messages of one lane over to be stored, and returns at once. Work that is returned is to be done
    /// by a thread that may wait, or nobody commits. Their sender waits `since` then.
    #[must_use]
    pub(crate) fn commit_and_go(
        self: &Arc<Self>,
        lane: usize,
        messages: Vec<CheckedMessage>,
        sender: Arc<dyn Acknowledge>,
        since: Instant,
    ) -> Option<Work> {
        debug_assert!(
            messages.iter().all(CheckedMessage::is_stored),
            "what is not stored waits for no commit"
        );
        let messages = messages.into_iter().map(|checked| checked.message).collect();
        let handed_over = HandedOver { node: self.clone(), lane, sender };
        let must_lead = self.store.append_and_go(lane, messages, Arc::new(handed_over), since);
        must_lead.then(|| HandedOver::lead(self, lane))
    }

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
        let options = self.namespace(&channel)?;
        self.check_audience(caller, &channel, options.publish)?;
        if data.as_json().is_none() && options.payload == PayloadKind::Json {
            return Err(PublishError::Json("it is no JSON that every client can read".to_owned()));
        }
        if options.persist && skip_history {
            return Err(PublishError::AlwaysStored);
        }
        let (is_stored, auto_create) = (options.persist, options.auto_create);
        let key = key.map(|key| own_key(key, info.as_deref()));
        let bytes_max = options.message_bytes_max;
        let message = NewMessage { channel, auto_create, data, info, tags, key };
        if message.size_bytes() > bytes_max {
            return Err(PublishError::TooLarge);
        }
        Ok(CheckedMessage { message, is_stored })
    }

    /// True when [`check_publish`](Self::check_publish) may have to ask the database.
    pub(crate) fn publish_asks(&self, caller: Caller<'_>, channel: &Channel) -> bool {
        let options = self.namespace(channel);
        options.is_ok_and(|options| self.asks_for_members(caller, channel, options.publish))
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
        let appended = self.store.append(messages, &self.engine);
        debug_assert_eq!(appended.len(), count, "the store answers for every message");
        appended.into_iter().map(outcome).collect()
    }

    /// Gives a message that is not stored to those who listen now.
    fn pass_on(&self, message: NewMessage) {
        let NewMessage { channel, data, info, tags, .. } = message;
        let created_at_ms = clock::unix_ms();
        self.engine.publish_ephemeral(Publication { channel, seq: 0, data, info, tags, created_at_ms });
    }
}

/// The key as it is stored. Nobody proves to be an anonymous sender that was there before, so the key of one holds for
/// its connection, whose id no other can choose.
fn own_key(key: Arc<str>, sender: Option<&ClientInfo>) -> Arc<str> {
    match sender {
        Some(sender) if sender.user.is_empty() => format!("{}:{key}", sender.client).into(),
        _ => key,
    }
}

/// What a sender is told of a message that was to be stored.
fn outcome(appended: Result<Appended, AppendError>) -> Result<Seq, PublishError> {
    let seq = appended.map(Appended::seq).map_err(PublishError::Store);
    debug_assert!(seq != Ok(0), "a stored message has a position");
    seq
}

fn next_outcome(outcomes: &mut impl Iterator<Item = Result<Seq, PublishError>>) -> Result<Seq, PublishError> {
    outcomes.next().unwrap_or(Err(PublishError::Store(AppendError::Unavailable)))
}
